"""Planted features that the SAEs of a study found, and verdicts by share."""

from typing import Any, cast

from atlas.config.plan import SaePlan, StudyPlan
from atlas.config.planted import PlantedSource
from atlas.errors import ConfigError
from atlas.measure import Measure, Stage


def _ids(study: StudyPlan) -> list[str]:
    """SAEs of a study; raises ConfigError unless the truth of all of them is planted."""
    for row in study.rows:
        if not study.config.models[row.model].is_planted:
            raise ConfigError(f"{row.sae_id} has no planted truth, so that {study.name}_recovery.csv cannot be made")
    return [row.sae_id for row in study.rows]


def _cosines_mb(sae: SaePlan) -> float:
    """All cosines of features and latents, in float64, beside the dictionaries."""
    source = cast(PlantedSource, sae.config.models[sae.row.model].source)  # of planted models alone
    return 3000 + 24e-6 * source.n_scored * sae.row.n_latents


def _samples(sae: SaePlan) -> dict[str, dict[str, Any]]:
    return {name: sae.config.corpora[name].model_dump(mode="json", include={"source"}) for name in sae.roles}


RECOVERY = Stage(
    "recovery",
    runs="atlas.planted.run.run_recovery",
    says="Looking for planted features in",
    inputs={
        "model": lambda sae: sae.model,
        "sae": lambda sae: sae.pair,
        "train_shards": lambda sae: sae.store.training_shards(sae.row.mix, sae.row.model),
        "shards": lambda sae: sae.shards(sae.roles),
    },
    outputs={"target": "results/recovery/{sae}/recovery.json"},
    params={"corpora": _samples, "draws": lambda sae: sae.config.evaluation.null_dictionaries},
    models=lambda model: model.is_planted,
    memory_mb=_cosines_mb,
    gpu=True,
)

MEASURE = Measure(
    "recovery",
    stages=(RECOVERY,),
    writes="atlas.planted.study_table.write_recovery",
    inputs={
        "metrics": lambda study: [f"results/metrics/{sae}/metrics.json" for sae in _ids(study)],
        "recoveries": lambda study: [f"results/recovery/{sae}/recovery.json" for sae in _ids(study)],
    },
    params={"metrics_by": _ids, "recoveries_by": _ids, "corpora": lambda study: study.corpora},
    outputs={"table": "results/{study}_recovery.csv", "verdicts": "results/{study}_verdicts.csv"},
    studies=lambda study: study.is_planted,
    in_all=lambda study: study.is_planted,
)
