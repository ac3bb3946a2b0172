"""Scorers: how well a label tells the examples on which its latent fires from others. Registered by name in `SCORERS`.

A scorer gets questions, each a label and windows, and gives a number per window: the higher, the more the label applies
there. It never learns which windows are which. NaN is no answer; it counts as undecided, not as absent.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from atlas.autointerp.delphi import delphi_detection, delphi_fuzzing
from atlas.autointerp.prompts import detection, fuzzing
from atlas.autointerp.safe import prompt_text
from atlas.autointerp.tools import Answers, Question, Scorer, ScorerTools, Tools

# What a scorer is given in place of a label when it must do without: the same for every latent.
BLIND = "text"


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


def embedding(tools: ScorerTools) -> Scorer:
    """Cosine of the sentence embeddings of label and window."""

    def score(questions: Sequence[Question]) -> Answers:
        if not questions:
            return []
        asked = np.unique(np.concatenate([question.windows for question in questions]))
        windows = tools.embed(window_texts(tools.tools, asked))
        texts = list(dict.fromkeys(question.label for question in questions))
        labels = dict(zip(texts, tools.embed(texts), strict=True))
        return [windows[np.searchsorted(asked, question.windows)] @ labels[question.label] for question in questions]

    return score


SCORERS: dict[str, Callable[[ScorerTools], Scorer]] = {
    "embedding": embedding,
    "detection": detection,
    "fuzzing": fuzzing,
    "delphi_detection": delphi_detection,
    "delphi_fuzzing": delphi_fuzzing,
}
