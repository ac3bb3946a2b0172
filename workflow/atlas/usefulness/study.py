"""Measure the use of a study's SAEs: each measure that it asks for, between its floor and its ceiling."""

from atlas.config.plan import StudyPlan
from atlas.config.study import TwinStage, UsefulnessMeasure
from atlas.measure import Figure, Measure
from atlas.stability.study import summary_of

# What is read of an SAE, by field of read.StageFiles; of a twin the value alone, where the study holds the stage
# against twins.
_FILES: dict[UsefulnessMeasure, dict[str, str]] = {
    "coherence": {"latents": "results/latents/{sae}/latents.json", "planted": "results/latents/{sae}/planted.json"},
    "stability": {"stability": ""},
    "labels": {"told": "results/autointerp/{sae}/told.json"},
}
_OF_TWINS: dict[UsefulnessMeasure, tuple[TwinStage, str]] = {
    "coherence": ("latents", "latents"),
    "stability": ("stability", "stability"),
    "labels": ("labels", "told"),
}


def _saes(study: StudyPlan) -> list[str]:
    """SAEs that are judged where they were trained, each once."""
    return list(dict.fromkeys(row.sae_id for row in study.rows if row.shift is None))


def _twins(study: StudyPlan) -> dict[str, dict[str, str]]:
    return {sae: {kind: twin.sae_id for kind, twin in twins.items()} for sae, twins in study.twins.items()}


def _asked(study: StudyPlan) -> list[list[str]]:
    """List the files that the table reads for SAEs and twins, as pairs of a field of StageFiles and an SAE."""
    own, twins = study.config.studies[study.name], _twins(study)
    found = [[field, sae] for sae in _saes(study) for name in own.usefulness for field in _FILES[name]]
    for kinds in twins.values():
        for name in own.usefulness:
            stage, field = _OF_TWINS[name]
            found += [[field, twin] for twin in kinds.values() if stage in own.twin_stages]
    return found


def _file(study: StudyPlan, field: str, sae_id: str) -> str:
    if field == "stability":
        return summary_of(study.name, sae_id)
    return next(files[field] for files in _FILES.values() if field in files).format(sae=sae_id)


def _can_be_judged(study: StudyPlan) -> bool:
    """Planted activations have no text, and no model whose loss could be recovered."""
    return bool(_saes(study)) and not study.is_planted


MEASURE = Measure(
    "usefulness",
    writes="atlas.usefulness.study_table.write_usefulness_table",
    inputs={
        "metrics": lambda study: [f"results/metrics/{sae}/metrics.json" for sae in _saes(study)],
        "comparisons": lambda study: [f"results/twins/{sae}/twins.json" for sae in study.twins],
        "stage_files": lambda study: [_file(study, *asked) for asked in _asked(study)],
    },
    params={
        "metrics_by": _saes,
        "comparisons_by": lambda study: list(study.twins),
        "corpora": lambda study: study.in_sample,
        "twins": _twins,
        "asked": _asked,
        "weak_recovered_below": lambda study: study.config.evaluation.taxonomy.weak_recovered_below,
    },
    studies=_can_be_judged,
    figure=Figure(
        "atlas.usefulness.figure.draw_usefulness",
        kind="usefulness",
        drawn=lambda study: _can_be_judged(study) and bool(study.config.studies[study.name].usefulness),
    ),
)
