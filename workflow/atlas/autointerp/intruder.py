"""Intruder detection: is what a latent fires on alike enough that a window it is silent on stands out? No label needed.

A trial shows windows of one stratum of activation, one of them replaced by a window on which the latent is silent. The
intruder takes the place and the highlights of the one that it replaces, so that neither tells anything: whoever does
not look at the text finds one in `intruder_windows`. No window is in two trials with the same kind of negatives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Integer as Int

from atlas.autointerp.examples import NEGATIVES, AllExamples, Examples
from atlas.autointerp.judge import MEASURES, NO_ANSWERS, LabelScores, Means, counts, highlights_of, unscored
from atlas.autointerp.tools import IntruderScorer, Lineup
from atlas.autointerp.windows import Windows
from atlas.config.autointerp import Autointerp
from atlas.statistics.draws import Drawn, document_draws, drawn_share
from atlas.statistics.intervals import rate_interval


@dataclass(frozen=True, eq=False)
class Trials:
    """Line-ups of one latent with one kind of negatives, and where in each the intruder stands."""

    latent: int
    kind: str
    lineups: list[Lineup]
    places: Int[np.ndarray, " trials"]

    @property
    def intruders(self) -> Int[np.ndarray, " trials"]:
        """The window that does not belong, of each line-up."""
        return np.array([own.windows[place] for own, place in zip(self.lineups, self.places, strict=True)], np.int64)


def judge_intruders(
    examples: AllExamples,
    chosen: Sequence[int] | np.ndarray,
    windows: Windows,
    scorer: IntruderScorer,
    settings: Autointerp,
    *,
    samples: int,
    seed: int,
) -> LabelScores:
    """Share of intruders that are found, of each of the `chosen` latents and kinds of negatives.

    A trial without an answer counts as one in which the intruder was not found.
    """
    rows, trials = [], []
    for latent in chosen:
        own = examples.latents[latent]
        for kind in NEGATIVES:
            reason = _reason(own, kind, settings)
            if reason is None:
                trials.append(draw_trials(own, kind, settings.intruder_windows, seed))
            else:
                rows.append(unscored(int(latent), kind, own, reason))
    picks = scorer([lineup for each in trials for lineup in each.lineups])
    draws, means, first = document_draws(windows.groups.count, samples), Means(), 0
    for each in trials:
        own_picks = picks[first : first + len(each.lineups)]
        first += len(each.lineups)
        found = own_picks == each.places
        score = drawn_share(found, draws[windows.group[each.intruders]])
        means.add(each.kind, {"score": score})
        rows.append(_row(each, examples.latents[each.latent], score, found, own_picks))
    columns = ["latent", "negatives"]
    table = pd.DataFrame(rows).sort_values(columns, kind="stable", ignore_index=True)
    table["n_trials"] = table.get("n_trials", pd.Series(np.nan, table.index)).astype("Int64")
    return LabelScores(table, means.all(), NO_ANSWERS)


def draw_trials(examples: Examples, kind: str, shown: int, seed: int) -> Trials:
    """As many line-ups of `shown` windows as activating test windows and negatives suffice for.

    Activating windows stand strongest first: consecutive ones are of like strength.
    """
    generator = np.random.Generator(np.random.PCG64([seed, examples.latent, 6, NEGATIVES.index(kind)]))
    whole = len(examples.test) // shown
    groups = generator.permutation(np.arange(whole * shown).reshape(whole, shown))
    intruders = generator.permutation(examples.negatives[kind])[:whole]
    places = generator.integers(shown, size=len(intruders))
    marks, lineups = highlights_of(examples.test_activations), []
    for group, intruder, place in zip(groups[: len(intruders)], intruders, places, strict=True):
        own = generator.permutation(group)
        windows = examples.test[own].copy()
        windows[place] = intruder
        lineups.append(Lineup(windows, marks[own]))
    return Trials(examples.latent, kind, lineups, places)


def summary_of_trials(rows: pd.DataFrame, shown: int) -> Mapping[str, Any]:
    """Return what the trials of scored latents say together, each as one: `all_trials` takes them as independent."""
    n_trials = int(rows.n_trials.sum())
    found, answered = (int((rows[name] * rows.n_trials).round().sum()) for name in ("score", "answered_share"))
    interval = [float(bound) for bound in rate_interval(found, n_trials)] if n_trials else None
    return {
        "chance": 1 / shown,
        "n_trials": n_trials,
        "all_trials": {"value": found / n_trials if n_trials else None, "interval": interval},
        "score_of_answered": found / answered if answered else None,
    }


def _reason(examples: Examples, kind: str, settings: Autointerp) -> str | None:
    """Return why a latent has no trials; None when it has."""
    least = max(settings.min_examples, settings.intruder_windows)
    if len(examples.test) < least:
        return f"fewer than {least} activating test examples"
    negatives = len(examples.negatives[kind])
    return None if negatives >= settings.min_examples else f"fewer than {settings.min_examples} {kind} negatives"


def _row(trials: Trials, examples: Examples, score: Drawn, found: np.ndarray, picks: np.ndarray) -> dict[str, Any]:
    low, high = rate_interval(found.sum(), len(found))
    row = counts(trials.latent, trials.kind, examples) | {"reason": None, "failed_share": float((picks < 0).mean())}
    row |= {f"{name}{end}": np.nan for name in MEASURES for end in ("", "_low", "_high")}
    row |= {"score": score.value, "score_low": float(low), "score_high": float(high)}
    return row | {"n_trials": len(found), "answered_share": float((picks >= 0).mean())}
