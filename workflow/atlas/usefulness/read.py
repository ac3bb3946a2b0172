"""Read each measure of usefulness with the two ends of its scale, from the files of the stages. docs/metrics.md, 20."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atlas.autointerp.planted import ALL
from atlas.errors import EvaluationError
from atlas.files import read_json
from atlas.sae_files import read_of_sae
from atlas.sae_ids import SaeId
from atlas.twins.learnt import DECIDING, best_twin
from atlas.usefulness.scale import (
    COHERENCE,
    LABELS,
    LEARNT,
    LOSS,
    MEASURES,
    STABILITY,
    Number,
    OverTwin,
    Scale,
    halfway,
)

LOSS_MEASURE = "loss_recovered_mean_regular"
# Of a null's draws: half the width of its interval, in their standard deviations.
_DRAWN = 2.0


@dataclass(frozen=True)
class StageFiles:
    """Files of one SAE or twin: latents.json, planted.json, stability.json, told.json; None: not asked for."""

    sae_id: str
    latents: Path | None = None
    planted: Path | None = None
    stability: Path | None = None
    told: Path | None = None


@dataclass(frozen=True)
class SaeResults:
    """One SAE: its in-sample corpus, its stages, twins.json or None, the stages of its twins by kind."""

    corpus: str
    stages: StageFiles
    comparison: Path | None = None
    twins: Mapping[str, StageFiles] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    """A measure of one dictionary."""

    value: Number | None = None
    floor: Number | None = None
    ceiling: Number | None = None


def read_scales(judged: SaeResults, metrics: Mapping[str, Any], weak_recovered_below: float) -> dict[str, Scale]:
    """Read the scale of each measure, in the order of `MEASURES`; `metrics` are those of its corpus under `atlas`.

    Raises EvaluationError where a file is of another SAE.
    """
    comparison = None
    if judged.comparison is not None:
        comparison = read_of_sae(judged.comparison, judged.stages.sae_id)["corpora"][judged.corpus]["measures"]
    found = {LOSS: _loss(metrics, comparison, weak_recovered_below), LEARNT: _learnt(comparison)}
    for name, read in _READERS.items():
        own = read(judged.stages, judged.corpus)
        if own is None:
            found[name] = Scale(reason="the study's `usefulness` does not ask for it")
            continue
        twins = {kind: read(files, judged.corpus) for kind, files in judged.twins.items()}
        values = {kind: each.value for kind, each in twins.items() if each is not None}
        found[name] = halfway(own.value, own.floor, own.ceiling, _over(own.value, values))
    return {name: found[name] for name in MEASURES}


def _over(value: Number | None, twins: Mapping[str, Number | None]) -> OverTwin | None:
    """The best twin; None where no twin has a value."""
    best = best_twin({kind: each and each.value for kind, each in twins.items()}, higher_is_better=True)
    other = None if best is None else twins[best]
    if value is None or best is None or other is None:
        return None
    return OverTwin(best, value.less(other))


def _loss(metrics: Mapping[str, Any], comparison: Mapping[str, Any] | None, threshold: float) -> Scale:
    value = Number.of(metrics.get(LOSS_MEASURE), metrics.get(f"{LOSS_MEASURE}_interval"))
    floor, ceiling = Number.exactly(0), Number.exactly(1)
    if value is None:
        return Scale(None, floor, ceiling, reason=f"{LOSS_MEASURE} is not defined here")
    return Scale(value, floor, ceiling, Number.exactly(threshold), _paired(comparison, LOSS_MEASURE))


def _learnt(comparison: Mapping[str, Any] | None) -> Scale:
    twin = _paired(comparison, DECIDING)
    if twin is None:
        return Scale(reason="it has no twin to be better than (docs/twins.md)")
    return Scale(twin.better_by, Number.exactly(0), None, Number.exactly(0), OverTwin(twin.kind, twin.better_by))


def _paired(comparison: Mapping[str, Any] | None, name: str) -> OverTwin | None:
    """A difference of twins.json."""
    if comparison is None:
        return None
    measure = comparison[name]
    better = Number.of(measure["better_by"], measure["interval"])
    return None if better is None else OverTwin(measure["best_twin"], better)


def _coherence(files: StageFiles, corpus: str) -> _Found | None:
    if files.latents is None:
        return None
    found = read_of_sae(files.latents, files.sae_id)["corpora"][corpus]
    value, floor = (
        Number.of(found[kind]["coherent_share"], found[kind]["coherent_share_interval"]) for kind in ("sae", "random")
    )
    if files.planted is None:
        return _Found(value, floor)
    ends = read_of_sae(files.planted, files.sae_id)["corpora"][corpus].get(ALL)
    return _Found(value, floor, ends and Number.of(ends["coherent_share"], ends["coherent_share_interval"]))


def _stability(files: StageFiles, corpus: str) -> _Found | None:
    """stability.json holds all seeds of a recipe."""
    if files.stability is None:
        return None
    seed = SaeId.parse(files.sae_id).seed
    own = read_json(files.stability)["saes"].get(str(seed))
    if own is None:
        raise EvaluationError(
            f"{files.stability}: has no seed {seed}, which {files.sae_id} has; delete it and run again"
        )
    shared = (own["firing"] or {}).get("shared")
    if shared is None:
        return _Found()
    nulls = [_null(shared, name) for name in ("null", "spectrum_null")]
    floor = max(nulls, key=lambda null: null.value)
    return _Found(Number.of(shared["value"], shared["interval"]), floor, Number.exactly(shared["ceiling"]))


def _null(measure: Mapping[str, Any], name: str) -> Number:
    mean, reach = measure[f"{name}_mean"], _DRAWN * measure[f"{name}_sd"]
    return Number(mean, (mean - reach, mean + reach))


def _labels(files: StageFiles, corpus: str) -> _Found | None:
    if files.told is None:
        return None
    told = read_of_sae(files.told, files.sae_id)
    shares = (told["sae"], told["random"], told["planted"].get(ALL))
    return _Found(*(each and Number.of(each["share"], each["interval"]) for each in shares))


_READERS: dict[str, Callable[[StageFiles, str], _Found | None]] = {
    COHERENCE: _coherence,
    STABILITY: _stability,
    LABELS: _labels,
}
