"""Delphi's own explainer and scorers, in Delphi's own environment, through our clients.

The peer's process (workflow/peers/delphi_bridge.py) runs Delphi's classes on our examples, and asks this one for every
reply: replies are kept on disk, limits and errors are the client's, and no key leaves this process.
"""

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from atlas.autointerp.prompts import read_answers, read_label
from atlas.autointerp.protocol import Client, NoReplyError, Reply, Request
from atlas.autointerp.reasoning import list_of, sentence_of
from atlas.autointerp.safe import break_marks, without_controls
from atlas.autointerp.tools import Answers, LatentExamples, Question, Scorer, ScorerTools, Tools
from atlas.errors import EvaluationError
from atlas.processes import peer_environment
from atlas.progress import progress

SCRIPT = Path(__file__).parents[2] / "peers" / "delphi_bridge.py"
_EXPLANATION_TOKENS, _SHOWN = 200, 3000
# Characters of which a mark of ours, or of a template, can have begun in the token before.
_REACH = 8


def delphi_default(evidence: Sequence[LatentExamples], tools: Tools) -> list[str | None]:
    """Explanations of Delphi's DefaultExplainer from the training examples."""
    items = [
        {
            "train": [
                {"tokens": token_texts(tools, int(window)), "activations": _counted(tools, int(window), values)}
                for window, values in zip(each.examples.train, each.examples.train_activations, strict=True)
            ]
        }
        for each in evidence
    ]
    return [None if found is None else read_label(found, None) for found in run_delphi("explain", items, tools)]


def delphi_detection(tools: ScorerTools) -> Scorer:
    """Delphi's DetectionScorer."""
    return _scorer(tools, "detection")


def delphi_fuzzing(tools: ScorerTools) -> Scorer:
    """Delphi's FuzzingScorer; its negatives are highlighted as ours are."""
    return _scorer(tools, "fuzzing")


def _scorer(tools: ScorerTools, kind: str) -> Scorer:
    def score(questions: Sequence[Question]) -> Answers:
        items = [
            {
                "label": break_marks(without_controls(question.label)),
                "per_prompt": tools.per_prompt,
                "examples": [
                    {
                        "tokens": token_texts(tools.tools, int(window)),
                        "marks": _counted(tools.tools, int(window), marks),
                    }
                    for window, marks in zip(question.windows, question.highlights, strict=True)
                ],
            }
            for question in questions
        ]
        found = run_delphi(kind, items, tools.tools)
        return [np.array([np.nan if each is None else each for each in answers]) for answers in found]

    return score


def token_texts(tools: Tools, window: int) -> list[str]:
    """Texts of a window's counted tokens, which together hold neither control characters nor marks."""
    own, before, found = tools.windows, "", []
    for token in own.tokens[window][own.counted[window]]:
        text = break_marks(without_controls(tools.tokens.spelled[token]))
        if break_marks(before + text) != before + text:
            text = f" {text}"
        found.append(text)
        before = (before + text)[-_REACH:]
    return found


def run_delphi(task: str, items: list[dict[str, Any]], tools: Tools) -> list[Any]:
    """Results of the items, in their order. Raises EvaluationError when Delphi's process fails, with its last words."""
    if tools.delphi is None or tools.client is None:
        raise EvaluationError("Delphi needs its environment and a client: configure autointerp.client")
    if not items:
        return []
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors").open("w+") as errors:
        file = Path(folder) / "task.json"
        file.write_text(json.dumps({"task": task, "items": items, "concurrency": tools.client.concurrency}))
        process = subprocess.Popen(
            [str(tools.delphi), "-I", str(SCRIPT), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=peer_environment(OMP_NUM_THREADS="1"),
        )
        try:
            with progress(len(items), f"Delphi, {task}", unit="latent" if task == "explain" else "label") as shown:
                found = _converse(process, tools.client, tools.seed, lambda: shown.update(1))
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        if status != 0 or set(found) != set(range(len(items))):
            errors.seek(0)
            raise EvaluationError(f"Delphi failed with status {status}; its output ends:\n{errors.read()[-_SHOWN:]}")
    return [found[place] for place in range(len(items))]


def _converse(process: subprocess.Popen, client: Client, seed: int, one_more: Callable[[], None]) -> dict[int, Any]:
    """Answer what the process asks until it is done, telling of every result; an error of the client ends both."""
    assert process.stdin is not None and process.stdout is not None  # opened as pipes
    stdin = process.stdin
    found: dict[int, Any] = {}
    pending: list[Future] = []
    lock = threading.Lock()

    def answer(message: dict[str, Any]) -> None:
        try:
            reply = client.complete(_request(message, seed))
        except NoReplyError:
            reply = None
        except BaseException:
            process.kill()
            raise
        line = {"ask": message["ask"], **_answer(reply, message["n_answers"])}
        with lock:
            stdin.write(json.dumps(line) + "\n")
            stdin.flush()

    with ThreadPoolExecutor(client.concurrency) as pool:
        for line in process.stdout:
            message = json.loads(line)
            if "result" in message:
                found[message["result"]] = message["value"]
                one_more()
            else:
                pending = [future for future in pending if not future.done() or future.exception()]
                pending.append(pool.submit(answer, message))
    for future in pending:
        future.result()
    return found


def _answer(reply: Reply | None, n_answers: int) -> dict[str, Any]:
    """Return what Delphi reads of a reply: no thought, and no probabilities but those of its answers; null is no
    reply.
    """
    text = (list_of(reply) if n_answers else sentence_of(reply)) or None
    if text is None or reply is None or reply.probabilities is None:
        return {"text": text, "probabilities": None}
    read = read_answers(reply, n_answers)
    return {"text": text, "probabilities": None if np.isnan(read).any() else read.tolist()}


def _request(message: dict[str, Any], seed: int) -> Request:
    messages = tuple((each["role"], each["content"]) for each in message["messages"])
    n_answers = message["n_answers"]
    choices = ("1", "0") if n_answers else ()
    return Request(messages, 4 * n_answers + 8 if n_answers else _EXPLANATION_TOKENS, 0.0, seed, choices, n_answers)


def _counted(tools: Tools, window: int, values: Float[np.ndarray, " width"] | Bool[np.ndarray, " width"]) -> list:
    return values[tools.windows.counted[window]].tolist()
