"""Planted features that the SAEs of a study found, and verdicts by share."""

from atlas.config.plan import StudyPlan
from atlas.errors import ConfigError
from atlas.measure import Measure


def _ids(study: StudyPlan) -> list[str]:
    """SAEs of a study; raises ConfigError unless the truth of all of them is planted."""
    for row in study.rows:
        if not study.config.models[row.model].is_planted:
            raise ConfigError(f"{row.sae_id} has no planted truth, so that {study.name}_recovery.csv cannot be made")
    return [row.sae_id for row in study.rows]


MEASURE = Measure(
    "recovery",
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
