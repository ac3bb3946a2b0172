"""Scorers: how well a label tells the examples on which its latent fires from others. Registered by name in `SCORERS`.

A scorer gets questions, each a label and windows, and gives a number per window: the higher, the more the label applies
there. It never learns which windows are which. NaN is no answer; it counts as undecided, not as absent.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Integer as Int

from atlas.autointerp.delphi import delphi_detection, delphi_fuzzing
from atlas.autointerp.prompts import detection, fuzzing
from atlas.autointerp.safe import prompt_text
from atlas.autointerp.tools import Answers, Question, Scorer, ScorerTools, Tools

# What a scorer is given in place of a label when it must do without: the same for every latent.
BLIND = "text"
_EDGES = ".,;:!?\"'()[]“”‘’"


def window_texts(tools: Tools, windows: Int[np.ndarray, " windows"]) -> list[str]:
    """The counted tokens of some windows as text that is safe in a prompt."""
    own = tools.windows
    return [
        prompt_text(
            tools.tokenizer.decode(
                own.tokens[window][own.counted[window]].tolist(),
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        )
        for window in windows
    ]


def words(tools: ScorerTools) -> Scorer:
    """Sum over the label's words that occur in a window of −ln(share of all windows in which the word occurs).

    A rare word in common counts for more than a frequent one. Words of the label that the text does not have are
    ignored. Case does not count.
    """
    of, texts = tools.tools.words.of, tools.tools.words.texts
    number = {text: index for index, text in enumerate(texts)}
    pairs = np.unique(np.stack([np.repeat(np.arange(len(of)), of.shape[1]), of.reshape(-1)]), axis=1)
    weight = -np.log(np.bincount(pairs[1], minlength=len(texts)) / len(of))

    def score(questions: Sequence[Question]) -> Answers:
        answers = []
        for question in questions:
            own = words_in(question.label, number)
            present = (of[question.windows][:, :, None] == np.array(own, np.int64)).any(1)
            answers.append(present @ weight[own] if own else np.zeros(len(question.windows)))
        return answers

    return score


def words_in(label: str, number: Mapping[str, int]) -> list[int]:
    """Numbers of the label's words, each once; `number` maps the words of the text to theirs.

    A comma ends a word, as `lexical` writes labels, and is a word where it stands alone; other punctuation around a
    word goes if the text has no such word.
    """
    found: dict[int, None] = {}
    for chunk in label.lower().replace("; promotes ", ", ").split():
        names = (chunk.removesuffix(","), chunk, chunk.strip(_EDGES))
        known = next((name for name in names if name in number), None)
        if known is not None:
            found[number[known]] = None
    return list(found)


def embedding(tools: ScorerTools) -> Scorer:
    """Cosine of the sentence embeddings of label and window."""

    def score(questions: Sequence[Question]) -> Answers:
        if not questions:
            return []
        asked = np.unique(np.concatenate([question.windows for question in questions]))
        assert tools.embed is not None  # checked before anything is scored
        windows = tools.embed(window_texts(tools.tools, asked))
        texts = list(dict.fromkeys(question.label for question in questions))
        labels = dict(zip(texts, tools.embed(texts), strict=True))
        return [windows[np.searchsorted(asked, question.windows)] @ labels[question.label] for question in questions]

    return score


SCORERS: dict[str, Callable[[ScorerTools], Scorer]] = {
    "words": words,
    "embedding": embedding,
    "detection": detection,
    "fuzzing": fuzzing,
    "delphi_detection": delphi_detection,
    "delphi_fuzzing": delphi_fuzzing,
}
