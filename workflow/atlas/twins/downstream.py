"""Measures of later stages for an SAE beside its twins: latents, labels, stability, probes, absorption. docs/twins.md.

Documents, data sets and letters are the same for an SAE and its twins, so differences are paired over them. Latents are
not: a latent of one dictionary has no counterpart in the other, and the two samples are independent.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.config.study import TwinStage
from atlas.errors import EvaluationError
from atlas.files import read_json
from atlas.latents.coherence import COHERENT_Z
from atlas.sae_ids import SaeId
from atlas.statistics.clusters import jackknife_interval
from atlas.statistics.intervals import difference_interval, welch_interval
from atlas.tables import read_parquet
from atlas.twins.learnt import best_twin, learnt

_STABLE = ("pw_mcc", "mmcs", "shared")
_ABSORBED = ("mean_absorption_fraction", "full_absorption_rate")


@dataclass(frozen=True)
class MeasuredValue:
    """One measure of one dictionary, and what its difference from another one is taken over.

    One of `paired` (value by item, the same items for every dictionary), `sample` (a value of each latent) or
    `interval` (all that is known: differences combine both by their distances from the values).
    """

    value: float | None
    higher_is_better: bool = True
    paired: Mapping[str, float] | None = None
    sample: np.ndarray | None = None
    interval: list[float] | None = None
    over: str = "latents"

    def better_by(self, other: "MeasuredValue") -> tuple[float | None, list[float] | None, int]:
        """Compute by how much this is better than `other`, above 0 in any case; the interval; how many items."""
        if self.paired is not None and other.paired is not None:
            names = sorted(set(self.paired) & set(other.paired))
            differences = np.array([self.paired[name] - other.paired[name] for name in names])
            value, interval, n = _mean_of(differences)
        elif self.sample is not None and other.sample is not None:
            n = min(len(self.sample), len(other.sample))
            value = float(self.sample.mean() - other.sample.mean()) if n else None
            interval = welch_interval(self.sample, other.sample)
        elif self.interval is None or other.interval is None:
            value = None if self.value is None or other.value is None else self.value - other.value
            interval, n = None, 0
        else:
            assert self.value is not None and other.value is not None  # what has an interval has a value
            value, n = self.value - other.value, 2
            before, after = other.interval, self.interval
            ends = difference_interval(other.value, before[0], before[1], self.value, after[0], after[1])
            interval = [float(end) for end in ends]
        if self.higher_is_better or value is None:
            return value, interval, n
        return -value, None if interval is None else [-interval[1], -interval[0]], n


def _mean_of(values: np.ndarray) -> tuple[float | None, list[float] | None, int]:
    n = len(values)
    if not n:
        return None, None, 0
    whole = float(values.mean())
    without = (values.sum() - values) / (n - 1) if n > 1 else np.empty(0)
    return whole, jackknife_interval(whole, without), n


def read_stage(stage: TwinStage, path: Path, sae_id: str) -> dict[str, MeasuredValue]:
    """Read the measures of one stage by name, from the file that the stage writes of an SAE.

    Raises EvaluationError where the file has nothing of this SAE.
    """
    return dict(_READERS[stage](path, sae_id))


def _latents(path: Path, sae_id: str) -> Iterator[tuple[str, MeasuredValue]]:
    """latents.parquet: the SAE's latents on the first in-sample corpus."""
    rows = read_parquet(path, columns=["dictionary", "corpus", "role", "coherence_z"])
    mine = rows[(rows.dictionary == "sae") & (rows.role == "in_sample")]
    if mine.empty:
        raise EvaluationError(f"{path}: has no latents of {sae_id} on an in-sample corpus; delete it and run again")
    z = mine.coherence_z[mine.corpus == mine.corpus.iloc[0]].dropna().to_numpy(float)
    yield "coherence_z", _sample(z)
    yield "coherent_share", _sample((z > COHERENT_Z).astype(float))


def _labels(path: Path, sae_id: str) -> Iterator[tuple[str, MeasuredValue]]:
    """scores.parquet: scores against random negatives; without an explainer they are of intruders."""
    rows = read_parquet(path, columns=["dictionary", "explainer", "scorer", "negatives", "score"])
    mine = rows[(rows.dictionary == "sae") & (rows.negatives == "random")]
    if mine.empty:
        raise EvaluationError(f"{path}: has no scores of latents of {sae_id}; delete it and run again")
    for (explainer, scorer), scores in mine.groupby(["explainer", "scorer"], dropna=False, sort=False):
        name = f"label_{explainer}_{scorer}" if isinstance(explainer, str) else f"intruder_{scorer}"
        yield name, _sample(scores.score.dropna().to_numpy(float))


def _stability(path: Path, sae_id: str) -> Iterator[tuple[str, MeasuredValue]]:
    """stability.json of all seeds of a recipe: how much of one seed comes back in the others."""
    seed = SaeId.parse(sae_id).seed
    own = read_json(path)["saes"].get(str(seed))
    if own is None:
        raise EvaluationError(f"{path}: has no seed {seed}, which {sae_id} has; delete it and run again")
    for name in _STABLE:
        measure = (own["firing"] or {}).get(name) or {"value": None, "interval": None}
        yield f"stability_{name}", MeasuredValue(measure["value"], interval=measure["interval"], over="both intervals")


def _probing(path: Path, sae_id: str) -> Iterator[tuple[str, MeasuredValue]]:
    """probing.json: AUC of probes of k latents, mean over data sets."""
    datasets = read_json(path)["datasets"]
    for k in next(iter(datasets.values()))["k"]:
        by_set = {name: float(data["k"][k]["sae"]["auc"]) for name, data in datasets.items()}
        yield f"probing_auc_k{k}", MeasuredValue(float(np.mean(list(by_set.values()))), paired=by_set, over="data sets")


def _absorption(path: Path, sae_id: str) -> Iterator[tuple[str, MeasuredValue]]:
    """Read means over letters of the first split from absorption.json; none where the file calls the result invalid."""
    result = read_json(path)
    for name in _ABSORBED:
        letters = {letter["letter"]: float(letter[name]) for letter in result["letters"]} if result["valid"] else {}
        value = float(np.mean(list(letters.values()))) if letters else None
        yield name, MeasuredValue(value, higher_is_better=False, paired=letters, over="letters")


def _sample(values: np.ndarray) -> MeasuredValue:
    return MeasuredValue(float(values.mean()) if len(values) else None, sample=values)


_READERS: dict[TwinStage, Callable[[Path, str], Iterator[tuple[str, MeasuredValue]]]] = {
    "latents": _latents,
    "labels": _labels,
    "stability": _stability,
    "probing": _probing,
    "absorption": _absorption,
}


def hold_against(
    own: Mapping[str, MeasuredValue], twins: Mapping[str, Mapping[str, MeasuredValue]]
) -> dict[str, dict[str, Any]]:
    """Hold each measure of an SAE against its twins (kind -> measures); the form is that of twins.json."""
    result: dict[str, dict[str, Any]] = {}
    for name, found in own.items():
        others = {kind: measures[name] for kind, measures in twins.items() if name in measures}
        values = {kind: others[kind].value if kind in others else None for kind in twins}
        best = best_twin(values, found.higher_is_better)
        if best is None or found.value is None:
            value, interval, n = None, None, 0
        else:
            value, interval, n = found.better_by(others[best])
        result[name] = {
            "value": found.value,
            "twins": values,
            "best_twin": best,
            "best_value": None if best is None else values[best],
            "better_by": value,
            "interval": interval,
            "over": found.over,
            "n": n,
            "learnt": learnt(interval),
        }
    return result
