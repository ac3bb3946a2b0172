"""An explainer and two scorers that ask a language model, through the protocol of clients.

What a model answers is read strictly: a label of a few words, or exactly one answer per numbered example. Everything
else is no answer, which is counted.
"""

import re
from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.autointerp.clients import complete_all
from atlas.autointerp.protocol import Client, Reply, Request
from atlas.autointerp.reasoning import has_thought, list_of, sentence_of
from atlas.autointerp.safe import break_marks, printable, without_controls
from atlas.autointerp.tools import Answers, LatentExamples, Question, Scorer, ScorerTools, Tools
from atlas.files import sha256_strings
from atlas.token_text import texts_inside

_SHOWN, _STRONG, _AFTER = 10, 0.5, 10
_LABEL_TOKENS, _LABEL_WORDS = 32, 12
_ANSWERS = ("1", "0")  # applies, does not apply
# Stand for the marks of a highlight until the text's own are broken; private characters, which no text keeps.
_OPEN, _CLOSE = "\ue000", "\ue001"

_EXPLAIN = (
    "You label a unit of a neural network by what its activating text has in common. You are given the words on which "
    "it is strongest, the words right after them, words that it makes likelier, and texts with its strong words in "
    "<< and >>. Answer with the label alone: one to six plain words, no sentence, no quotes."
)
_JUDGE = {
    "detection": "For each numbered example decide whether what the label describes occurs in it.",
    "fuzzing": "For each numbered example decide whether the words between << and >> are what the label describes.",
}
_FORMAT = "Answer with a list of {n} numbers alone, 1 for yes and 0 for no, such as [{sample}]."


def max_activation(evidence: Sequence[LatentExamples], tools: Tools) -> list[str | None]:
    """Labels by a language model from the strongest examples, the words after, and promoted tokens."""
    requests = [_explain(each, tools) for each in evidence]
    asked = {index: request for index, request in enumerate(requests) if request is not None}
    replies = complete_all(cast(Client, tools.client), list(asked.values()), "explain")
    labels: list[str | None] = [None] * len(requests)
    for index, reply in zip(asked, replies, strict=True):
        labels[index] = read_label(sentence_of(reply))
    return labels


def read_label(text: str | None, most_words: int | None = _LABEL_WORDS) -> str | None:
    """A label as it is kept: the first line, without quotes.

    None for no text, for more words than `most_words`, and for a line that only announces one ("The label is:").
    """
    lines = [line for line in (text or "").strip().splitlines() if line.strip()]
    label = re.sub(r"^\W*label\W*:", "", lines[0], flags=re.IGNORECASE) if lines else ""
    label = printable(" ".join(label.split())).strip("\"'`*. ")
    fits = (most_words is None or len(label.split()) <= most_words) and not label.endswith(":")
    return label if label and fits else None


def detection(tools: ScorerTools) -> Scorer:
    """Return whether what the label says occurs in a window, by a language model that sees no highlights."""
    return _classifier(tools, "detection")


def fuzzing(tools: ScorerTools) -> Scorer:
    """Return whether the highlighted words are what the label says; those of negatives are copied patterns."""
    return _classifier(tools, "fuzzing")


def read_answers(reply: Reply | None, n_answers: int) -> Float[np.ndarray, " answers"]:
    """Probabilities of yes, or 1 and 0; all NaN unless there is exactly one answer per example."""
    known = None if reply is None or reply.probabilities is None else np.array(reply.probabilities, np.float64)
    thinks = reply is not None and (reply.cut or has_thought(reply.text))
    if known is not None and len(known) == n_answers and not thinks:
        return known
    found = re.findall(r"\[([01](?:\s*,\s*[01])*)\]", list_of(reply))
    answers = np.array([float(each) for each in found[0].split(",")] if len(found) == 1 else [])
    if len(answers) != n_answers:
        return np.full(n_answers, np.nan)
    # Probabilities that contradict the list are of numbers in a thought.
    if known is not None and len(known) == n_answers and bool(((known > 0.5) == (answers > 0.5)).all()):
        return known
    return answers


def highlighted(tools: Tools, tokenizer, window: int, marks: Bool[np.ndarray, " width"]) -> str:
    """A window's counted tokens as text that is safe in a prompt, runs of marked ones between ``<<`` and ``>>``."""
    own = tools.windows
    kept = own.counted[window]
    tokens, marks = own.tokens[window][kept], marks[kept]
    parts = np.split(np.arange(len(tokens)), np.flatnonzero(np.diff(marks)) + 1)
    # The first part begins the text; a space belongs between it and the others.
    texts = [
        tokenizer.decode(tokens[parts[0]].tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False),
        *texts_inside(tokenizer, [tokens[part].tolist() for part in parts[1:]], skip_special_tokens=True),
    ]
    safe = [without_controls(text) for text in texts]
    whole = "".join(
        f"{_OPEN}{text}{_CLOSE}" if len(part) and marks[part[0]] else text
        for part, text in zip(parts, safe, strict=True)
    )
    return break_marks(whole).replace(_OPEN, "<<").replace(_CLOSE, ">>")


def _explain(evidence: LatentExamples, tools: Tools) -> Request | None:
    windows, values = evidence.examples.train[:_SHOWN], evidence.examples.train_activations[:_SHOWN]
    if not len(windows):
        return None
    marks = values > _STRONG * values.max(1, keepdims=True)
    place = values.argmax(1)
    words = tools.words.of[windows]
    rows = np.arange(len(windows))
    after = [words[row, place[row] + 1] for row in rows if place[row] + 1 < words.shape[1]]
    lists = {
        "Strongest words": _names(tools, words[rows, place]),
        "Words right after": _names(tools, np.array(after, np.int64)),
        "Made likelier": ", ".join(evidence.promoted[:_AFTER]),
    }
    texts = [
        highlighted(tools, tools.tokenizer, int(window), mark) for window, mark in zip(windows, marks, strict=True)
    ]
    user = "\n".join(f"{name}: {break_marks(text)}" for name, text in lists.items() if text)
    user += "\n\n" + "\n".join(f"Text {number}: {text}" for number, text in enumerate(texts, 1))
    return Request((("system", _EXPLAIN), ("user", user)), _LABEL_TOKENS, seed=tools.seed)


def _names(tools: Tools, words: Int[np.ndarray, " words"]) -> str:
    return ", ".join(dict.fromkeys(tools.words.texts[word] for word in words))


def _classifier(tools: ScorerTools, kind: str) -> Scorer:
    def score(questions: Sequence[Question]) -> Answers:
        orders = [_order(question) for question in questions]
        requests, places = [], []
        for number, (question, order) in enumerate(zip(questions, orders, strict=True)):
            for first in range(0, len(order), tools.per_prompt):
                part = order[first : first + tools.per_prompt]
                requests.append(_judge(tools, kind, question, part))
                places.append((number, part))
        answers = [np.full(len(question.windows), np.nan) for question in questions]
        replies = complete_all(cast(Client, tools.tools.client), requests, kind)
        for (number, part), reply in zip(places, replies, strict=True):
            answers[number][part] = read_answers(reply, len(part))
        return answers

    return score


def _order(question: Question) -> Int[np.ndarray, " windows"]:
    """Examples come in an order that tells nothing, and is the same for the same question: its replies are kept."""
    seed = sha256_strings([question.label, question.windows.astype(np.int64).tobytes().hex()])
    return np.random.Generator(np.random.PCG64(int(seed, 16))).permutation(len(question.windows))


def _judge(tools: ScorerTools, kind: str, question: Question, part: Int[np.ndarray, " part"]) -> Request:
    none = np.zeros(tools.tools.windows.width, bool)
    texts = [
        highlighted(
            tools.tools,
            tools.tools.tokenizer,
            int(question.windows[index]),
            question.highlights[index] if kind == "fuzzing" else none,
        )
        for index in part
    ]
    examples = "\n".join(f"Example {number}: {one_line(text)}" for number, text in enumerate(texts, 1))
    sample = ", ".join(_ANSWERS[index % 2] for index in range(len(part)))
    system = f"{_JUDGE[kind]} {_FORMAT.format(n=len(part), sample=sample)}"
    user = f"Label: {break_marks(without_controls(question.label))}\n\n{examples}"
    return Request(
        (("system", system), ("user", user)),
        4 * len(part) + 8,
        seed=tools.tools.seed,
        choices=_ANSWERS,
        n_answers=len(part),
    )


def one_line(text: str) -> str:
    """A line break inside an example could begin another "Example"."""
    return " ".join(text.split())
