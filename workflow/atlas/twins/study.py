"""Compare the SAEs of a study with their twins, in all stages that the study asks for."""

from atlas.config.plan import StudyPlan
from atlas.measure import Measure
from atlas.stability.study import summary_of

# What a stage writes of one SAE.
_STAGE_FILES = {
    "latents": "results/latents/{sae}/latents.parquet",
    "labels": "results/autointerp/{sae}/scores.parquet",
    "probing": "results/probing/{sae}/probing.json",
    "absorption": "results/absorption/{sae}/absorption.json",
}


def _stages(study: StudyPlan) -> list[str]:
    return list(study.config.studies[study.name].twin_stages)


def _asked(study: StudyPlan) -> list[list[str]]:
    """Each stage that a study holds against twins, with each of its SAEs and twins."""
    everyone = [sae for own, twins in study.twins.items() for sae in (own, *(twin.sae_id for twin in twins.values()))]
    return [[stage, sae] for stage in _stages(study) for sae in everyone]


def _stage_file(study: StudyPlan, stage: str, sae_id: str) -> str:
    return summary_of(study.name, sae_id) if stage == "stability" else _STAGE_FILES[stage].format(sae=sae_id)


MEASURE = Measure(
    "learnt",
    writes="atlas.twins.study_table.write_learnt",
    inputs={
        "comparisons": lambda study: [f"results/twins/{sae}/twins.json" for sae in study.twins],
        "stage_files": lambda study: [_stage_file(study, *asked) for asked in _asked(study)],
    },
    params={
        "comparisons_by": lambda study: list(study.twins),
        "twins": lambda study: {
            sae: {kind: twin.sae_id for kind, twin in twins.items()} for sae, twins in study.twins.items()
        },
        "corpora": lambda study: study.corpora,
        "stages": _stages,
        "asked": _asked,
    },
    studies=lambda study: bool(study.twins),
    memory_mb=2000,
    minutes=20,
)
