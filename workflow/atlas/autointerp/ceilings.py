"""Score planted latents as real ones are scored: the highest and the lowest values that an instrument can give."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from atlas.autointerp.by_context import LEAST_TOLD, fact_correlations
from atlas.autointerp.examples import choose_examples
from atlas.autointerp.explainers import EXPLAINERS
from atlas.autointerp.intruder import judge_intruders
from atlas.autointerp.intruder_scorers import INTRUDERS
from atlas.autointerp.judge import LabelScores, judge_labels
from atlas.autointerp.planted import PLANTED_CLASSES, Planted, plant
from atlas.autointerp.scorers import SCORERS
from atlas.autointerp.tools import LatentExamples, ScorerTools
from atlas.codes.store import Codes
from atlas.config.autointerp import Autointerp

_DECIDE = ["score", "score_low", "specificity_low"]  # as in the outcome of a latent
_NO_NEIGHBOURS = np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)


def score_planted(
    codes: Sequence[Codes],
    densities: Float[np.ndarray, " latents"],
    tools: ScorerTools,
    settings: Autointerp,
    samples: int,
) -> list[dict[str, Any]]:
    """Label and score planted latents with every explainer and scorer that asks no language model.

    Return rows by explainer, scorer, class and background: number of latents, mean score with interval, share told,
    and `latents`, what was found for each.
    `densities` are the shares of tokens on which the dictionary's alive latents fire. Negatives are random windows.
    """
    settings, seed, windows = settings.without_model, settings.seeds[0], tools.tools.windows
    planted = plant(codes, windows, tools.tools.words, tools.tools.tokens, densities, settings.planted, seed)
    n_latents = len(planted.classes)
    if not n_latents:
        return []
    latents, cosines = (np.empty((n_latents, 0), part.dtype) for part in _NO_NEIGHBOURS)
    # Of Codes they have the part that is read.
    examples = choose_examples(cast(Any, planted.codes), windows, (latents, cosines), settings, seed)
    evidence = [LatentExamples(own, ()) for own in examples.latents]
    groups = [(name, dense) for name in PLANTED_CLASSES for dense in (False, True) if planted.members(name, dense)]
    rows = []
    for explainer in settings.explainers:
        labels = EXPLAINERS[explainer](evidence, tools.tools)
        for scorer in settings.label_scorers:
            asked = SCORERS[scorer](tools)
            for name, dense in groups:
                own = planted.members(name, dense)
                judged = judge_labels(labels, examples, own, windows, asked, settings, samples=samples, seed=seed)
                rows.append(_row(explainer, scorer, name, dense, own, judged, 0.5))
    for scorer in settings.intruder_scorers:
        for name, dense in groups:
            own = planted.members(name, dense)
            asked = INTRUDERS[scorer](tools)
            judged = judge_intruders(examples, own, windows, asked, settings, samples=samples, seed=seed)
            rows.append(_row(None, scorer, name, dense, own, judged, 1 / settings.intruder_windows))
    return [*rows, *_by_fact(planted, groups, tools, settings, seed)]


def _row(
    explainer: str | None,
    scorer: str,
    name: str,
    dense: bool,
    members: Sequence[int],
    judged: LabelScores,
    chance: float,
) -> dict[str, Any]:
    rows = judged.rows[(judged.rows.negatives == "random") & judged.rows.reason.isna()]
    score = judged.means.get(("random", "score"))
    return {
        "explainer": explainer,
        "scorer": scorer,
        "class": name,
        "dense": dense,
        "n_planted": len(members),
        "n_scored": len(rows),
        "score": None if score is None else {"value": score.value, "interval": score.interval},
        "share_told": float((rows.score_low > chance).mean()) if len(rows) else None,
        "latents": _by_latent(rows, members),
    }


def _by_latent(rows: pd.DataFrame, members: Sequence[int]) -> list[dict[str, float | None]]:
    """Score of each member and the lower ends that decide whether it tells; None where there is none."""
    found = rows.set_index("latent").reindex(index=members, columns=_DECIDE)
    return [{name: _known(each[name]) for name in _DECIDE} for each in found.to_dict("records")]


def _known(value: float) -> float | None:
    return float(value) if pd.notna(value) else None


def _by_fact(
    planted: Planted, groups: Sequence[tuple[str, bool]], tools: ScorerTools, settings: Autointerp, seed: int
) -> list[dict[str, Any]]:
    texts = tools.tools.tokens.texts
    # Of Codes they have the part that is read.
    found = fact_correlations(cast(Any, planted.codes), tools.tools.windows, texts, seed, settings.min_examples)
    rows = []
    for fact, correlations in found.items():
        for name, dense in groups:
            own = pd.Series(correlations[planted.members(name, dense)])
            known = own.dropna()
            row = {"explainer": None, "scorer": fact, "class": name, "dense": dense, "n_planted": len(own)}
            row |= {"n_scored": len(known), "score": None, "share_told": None}
            row["latents"] = [{"score": _known(value)} for value in own]
            if len(known):
                row["score"] = {"value": float(known.mean()), "interval": None}
                row["share_told"] = float((known > LEAST_TOLD).mean())
            rows.append(row)
    return rows
