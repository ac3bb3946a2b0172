"""Usefulness of the SAEs of a study: one row per SAE, each measure between its floor and its ceiling."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atlas.sae_files import read_of_sae
from atlas.studies.rows import frame_of, identity
from atlas.tables import write_csv
from atlas.twins.learnt import UNTESTED
from atlas.usefulness.read import SaeResults, StageFiles, read_scales
from atlas.usefulness.scale import Number, Scale, untested, useful

_BESIDE = "delta_loss_regular"


def write_usefulness_table(
    study: str,
    metrics: Mapping[str, Path],
    comparisons: Mapping[str, Path],
    corpora: Mapping[str, str],
    twins: Mapping[str, Mapping[str, str]],
    asked: Sequence[Sequence[str]],
    stage_files: Sequence[Path],
    weak_recovered_below: float,
    table: Path,
) -> None:
    """Write results/<study>_usefulness.csv from the metrics.json of each SAE (SAE id → file), on its `corpora`.

    `comparisons` has twins.json of SAEs with twins, `twins` the ids of these by kind; `asked` has a field of
    `StageFiles` and an SAE or twin for each of `stage_files`. Columns: docs/metrics.md, section 20. Raises
    EvaluationError when a file is of another SAE.
    """
    stages: dict[str, StageFiles] = {}
    for (kind, sae_id), path in zip(asked, stage_files, strict=True):
        stages[sae_id] = replace(stages.get(sae_id, StageFiles(sae_id)), **{kind: path})
    rows = []
    for sae_id, path in metrics.items():
        own = {kind: stages[twin] for kind, twin in twins.get(sae_id, {}).items() if twin in stages}
        judged = SaeResults(corpora[sae_id], stages.get(sae_id, StageFiles(sae_id)), comparisons.get(sae_id), own)
        rows.append(identity(study, sae_id) | _row(judged, path, weak_recovered_below))
    write_csv(table, frame_of(rows))


def _row(judged: SaeResults, metrics: Path, weak_recovered_below: float) -> dict[str, Any]:
    found = read_of_sae(metrics, judged.stages.sae_id)["corpora"][judged.corpus]
    scales = read_scales(judged, found["atlas"], weak_recovered_below)
    words = {name: scale.word for name, scale in scales.items()}
    learnt = UNTESTED
    if judged.comparison is not None:
        learnt = read_of_sae(judged.comparison, judged.stages.sae_id)["corpora"][judged.corpus]["learnt"]
    beside = Number.of(found["atlas"].get(_BESIDE), found["atlas"].get(f"{_BESIDE}_interval"))
    reasons = {name: scale.reason for name, scale in scales.items() if scale.reason}
    return {
        "corpus": judged.corpus,
        "outcome": found["outcome"]["atlas"]["verdict"],
        "learnt": learnt,
        "useful": useful(words),
        "untested": ", ".join(untested(words)),
        **{key: value for name, scale in scales.items() for key, value in _columns(name, scale)},
        **dict(_number(_BESIDE, beside)),
        "reasons": json.dumps(reasons, ensure_ascii=False, sort_keys=True),
    }


def _columns(name: str, scale: Scale) -> Iterator[tuple[str, Any]]:
    yield f"{name}_word", scale.word
    yield f"{name}_value", scale.value and scale.value.value
    yield from _interval(name, scale.value)
    for end in ("floor", "ceiling", "threshold"):
        yield from _number(f"{name}_{end}", getattr(scale, end))
    yield f"{name}_best_twin", scale.twin and scale.twin.kind
    yield from _number(f"{name}_over_twin", scale.twin and scale.twin.better_by)
    yield f"{name}_of_the_way", scale.of_the_way


def _number(name: str, number: Number | None) -> Iterator[tuple[str, Any]]:
    yield name, number and number.value
    yield from _interval(name, number)


def _interval(name: str, number: Number | None) -> Iterator[tuple[str, Any]]:
    low, high = (number and number.interval) or (None, None)
    yield f"{name}_interval_low", low
    yield f"{name}_interval_high", high
