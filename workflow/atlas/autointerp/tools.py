"""Input and output of explainers and scorers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.autointerp.examples import Examples
from atlas.autointerp.protocol import Client
from atlas.autointerp.windows import Windows
from atlas.autointerp.words import WindowWords
from atlas.latents.token_classes import TokenTable


@dataclass(frozen=True, eq=False)
class LatentExamples:
    """Input of an explainer: a latent's training examples, and tokens that it promotes (may be empty)."""

    examples: Examples
    promoted: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Tools:
    """Input that all explainers and scorers share: the text, its tokenizer, the language model if there is one.

    `seed` goes into requests.
    """

    windows: Windows
    words: WindowWords
    tokens: TokenTable
    tokenizer: Any
    client: Client | None
    seed: int
    delphi: Path | None = None  # Python of Delphi's environment


class Explainer(Protocol):
    """Labels from the evidence of many latents: one each, None where there is no label to give."""

    def __call__(self, evidence: Sequence[LatentExamples], tools: Tools) -> list[str | None]:
        """One label per latent; None is counted, and never replaced."""
        ...


@dataclass(frozen=True, eq=False)
class Question:
    """A label, windows, and in each the tokens that are highlighted (activating ones, or a pattern copied from one)."""

    label: str
    windows: Int[np.ndarray, " windows"]
    highlights: Bool[np.ndarray, "windows width"]


@dataclass(frozen=True, eq=False)
class Lineup:
    """Windows of which all but one activate a latent, and in each the tokens that are highlighted."""

    windows: Int[np.ndarray, " shown"]
    highlights: Bool[np.ndarray, "shown width"]


# Texts to unit vectors: atlas.latents.embedder.Embedder is one.
Embed = Callable[[Sequence[str]], Float[np.ndarray, "texts width"]]
# A number per window, the higher the more the label applies there; NaN is no answer, and counts as undecided.
Answers = list[Float[np.ndarray, " windows"]]
Scorer = Callable[[Sequence[Question]], Answers]
# For each line-up the place of the window that does not belong; −1 is no answer.
IntruderScorer = Callable[[Sequence[Lineup]], Int[np.ndarray, " lineups"]]


@dataclass(frozen=True, eq=False)
class ScorerTools:
    """Further input of a scorer: the sentence encoder if there is one, windows per prompt, the device."""

    tools: Tools
    embed: Embed | None
    device: torch.device | None
    per_prompt: int = 5
