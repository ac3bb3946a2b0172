"""Labels put to the test: every latent's score beside its controls, and what is not scored, with the reason.

Controls of each score, on the same windows: `shuffled`, the labels of other latents in place of its own, and `blind`,
one and the same text for all. The random dictionary goes the same way as the SAE, and stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.autointerp.examples import NEGATIVES, AllExamples, Examples, matched_highlights
from atlas.autointerp.scorers import BLIND
from atlas.autointerp.tools import Question, Scorer
from atlas.autointerp.windows import Windows
from atlas.config.autointerp import Autointerp
from atlas.statistics.auc import auc_interval, wins
from atlas.statistics.draws import Drawn, document_draws, drawn_auc

# A token is highlighted when it has this share of the strongest activation among the latent's test examples; as in
# Delphi 0.1.3, `threshold`.
HIGHLIGHT_SHARE = 0.3
NO_ANSWERS = pd.DataFrame({"latent": [], "kind": [], "window": [], "answer": []})
MEASURES = ("score", "shuffled", "blind", "specificity", "over_blind")
_AREAS = ("score", "blind")  # AUCs of a single label


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Rows of scores: one per latent and kind of negatives; and means over latents in every draw of documents.

    `means` maps (negatives, measure) to the mean over scored latents: (value, draws). `answers` has what the scorer
    said of the latents' own labels, one row per window: latent, kind (activating, random, hard), window, answer.
    """

    rows: pd.DataFrame
    means: dict[tuple[str, str], Drawn]
    answers: pd.DataFrame


@dataclass(frozen=True, eq=False)
class LabelResults:
    """Results for a dictionary: rows of labels, judgements by (explainer, scorer), quality by explainer.

    Judgements without an explainer (None) need no label. `n_firings` counts firings on counted tokens, and `by_fact`
    has the correlations of `fact_correlations`.
    """

    n_firings: Int[np.ndarray, " n_latents"]
    by_fact: dict[str, Float[np.ndarray, " n_latents"]]
    n_alive: int
    n_chosen: int
    labels: pd.DataFrame
    judged: dict[tuple[str | None, str], LabelScores]
    quality: dict[str, dict[str, Any]]


def judge_labels(
    labels: Sequence[str | None],
    examples: AllExamples,
    chosen: Sequence[int] | np.ndarray,
    windows: Windows,
    scorer: Scorer,
    settings: Autointerp,
    *,
    samples: int,
    seed: int,
) -> LabelScores:
    """Score the labels of the `chosen` latents; of the others nothing is said."""
    able = {latent: ready(examples.latents[latent], labels[latent], settings) for latent in chosen}
    tested = [latent for latent in chosen if any(reason is None for reason in able[latent].values())]
    questions, plans = [], []
    for latent in tested:
        kinds = [kind for kind in NEGATIVES if able[latent][kind] is None]
        own = [labels[latent], *other_labels(latent, labels, tested, settings.swaps, seed), BLIND]
        asked = _windows(examples.latents[latent], kinds, seed)
        plans.append((latent, kinds, len(own)))
        questions += [Question(label, *asked) for label in own]
    answers, place = scorer(questions), 0
    draws = document_draws(windows.groups.count, samples)
    rows, means, own_answers = [], Means(), []
    for latent, kinds, count in plans:
        given = np.stack(answers[place : place + count])
        own_answers.append(_answers(examples.latents[latent], kinds, questions[place].windows, given[0]))
        place += count
        found = _score(examples.latents[latent], kinds, given, draws, windows)
        for kind, measured in found.items():
            means.add(kind, measured)
            rows.append(_row(latent, kind, examples.latents[latent], measured, given, windows))
    for latent in chosen:
        rows += [
            unscored(latent, kind, examples.latents[latent], reason)
            for kind, reason in able[latent].items()
            if reason is not None
        ]
    table = pd.DataFrame(rows).sort_values(["latent", "negatives"], kind="stable", ignore_index=True)
    return LabelScores(table, means.all(), pd.concat(own_answers, ignore_index=True) if own_answers else NO_ANSWERS)


def ready(examples: Examples, label: str | None, settings: Autointerp) -> dict[str, str | None]:
    """For each kind of negatives why a latent cannot be scored, None when it can."""
    least = settings.min_examples
    common = None
    if len(examples.train) == 0:
        common = "no example for the explainer"
    elif len(examples.test) < least:
        common = f"fewer than {least} activating test examples"
    elif label is None:
        common = "no label"
    few = {
        kind: None if len(windows) >= least else f"fewer than {least} {kind} negatives"
        for kind, windows in examples.negatives.items()
    }
    return {kind: common or reason for kind, reason in few.items()}


def other_labels(
    latent: int, labels: Sequence[str | None], tested: Sequence[int], count: int, seed: int
) -> list[str | None]:
    """Labels of up to `count` other latents, drawn at random; without any the latent's control is its own label."""
    others = np.array([other for other in tested if other != latent])
    generator = np.random.Generator(np.random.PCG64([seed, latent, 3]))
    drawn = generator.permutation(others)[:count]
    return [labels[other] for other in drawn] if len(drawn) else [labels[latent]]


def highlights_of(activations: Float[np.ndarray, "windows width"]) -> Bool[np.ndarray, "windows width"]:
    """Tokens that are highlighted in activating examples."""
    return activations > HIGHLIGHT_SHARE * activations.max(initial=0)


def _windows(examples: Examples, kinds: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All windows of a test and their highlights; those of the negatives are copied from activating examples."""
    negatives = [examples.negatives[kind] for kind in kinds]
    generator = np.random.Generator(np.random.PCG64([seed, examples.latent, 4]))
    own = highlights_of(examples.test_activations)
    marks = [own, *(matched_highlights(own, len(each), generator) for each in negatives)]
    return np.concatenate([examples.test, *negatives]), np.concatenate(marks)


def _answers(examples: Examples, kinds: Sequence[str], windows: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """Return what the scorer said of a latent's own label, window by window, and what each window was there for."""
    sizes = [len(examples.test), *(len(examples.negatives[kind]) for kind in kinds)]
    kind = np.repeat(["activating", *kinds], sizes)
    return pd.DataFrame({"latent": examples.latent, "kind": kind, "window": windows, "answer": given.astype(float)})


def _score(
    examples: Examples, kinds: Sequence[str], answers: np.ndarray, draws: np.ndarray, windows: Windows
) -> dict[str, dict[str, Drawn]]:
    """Answers are those to the own label, the others', and the blind one: (labels, windows)."""
    n_positives, first, found = len(examples.test), len(examples.test), {}
    positive_draws = draws[windows.group[examples.test]]
    for kind in kinds:
        negatives = examples.negatives[kind]
        won = wins(answers[:, :n_positives], answers[:, first : first + len(negatives)])
        first += len(negatives)
        negative_draws = draws[windows.group[negatives]]
        parts = {"score": won[0], "shuffled": won[1:-1].mean(0), "blind": won[-1]}
        measured = {name: drawn_auc(part, positive_draws, negative_draws) for name, part in parts.items()}
        measured["specificity"] = measured["score"] - measured["shuffled"]
        measured["over_blind"] = measured["score"] - measured["blind"]
        found[kind] = measured
    return found


def _row(
    latent: int, kind: str, examples: Examples, measured: Mapping[str, Drawn], answers: np.ndarray, windows: Windows
) -> dict[str, Any]:
    row = counts(latent, kind, examples) | {"reason": None, "failed_share": float(np.isnan(answers[0]).mean())}
    documents = [len(np.unique(windows.group[each])) for each in (examples.test, examples.negatives[kind])]
    for name in MEASURES:
        if name in _AREAS:  # draws of few examples have no width where a label tells all of them
            low, high = auc_interval(measured[name].value, *documents)
        else:
            low, high = measured[name].interval or (None, None)
        row |= {name: measured[name].value, f"{name}_low": low, f"{name}_high": high}
    return row


def unscored(latent: int, kind: str, examples: Examples, reason: str) -> dict[str, Any]:
    """The row of a latent that has no score, with the reason."""
    empty = {f"{name}{end}": None for name in MEASURES for end in ("", "_low", "_high")}
    return counts(latent, kind, examples) | {"reason": reason, "failed_share": None} | empty


def counts(latent: int, kind: str, examples: Examples) -> dict[str, Any]:
    """Return what every row of scores begins with."""
    return {
        "latent": latent,
        "negatives": kind,
        "n_positives": len(examples.test),
        "n_negatives": len(examples.negatives[kind]),
        "neighbour_cosine": examples.neighbour_cosine if kind == "hard" else None,
    }


class Means:
    """Means over latents, in every draw over those that have a value in it."""

    def __init__(self):
        self._values: dict[tuple[str, str], list[Drawn]] = {}

    def add(self, kind: str, measured: Mapping[str, Drawn]) -> None:
        """The measures of one more latent on one kind of negatives."""
        for name, auc in measured.items():
            self._values.setdefault((kind, name), []).append(auc)

    def all(self) -> dict[tuple[str, str], Drawn]:
        """Mean of each (negatives, measure)."""
        result = {}
        for key, values in self._values.items():
            draws = np.stack([auc.draws for auc in values])
            known = np.isfinite(draws)
            total = np.where(known, draws, 0).sum(0)
            mean = np.divide(total, known.sum(0), out=np.full(len(total), np.nan), where=known.any(0))
            result[key] = Drawn(float(np.mean([auc.value for auc in values])), mean)
        return result
