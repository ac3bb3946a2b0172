"""Measure how much of a study's dictionaries comes back with another seed."""

from pathlib import PurePosixPath

from atlas.config.plan import StudyPlan
from atlas.measure import Figure, Measure


def summary_of(study: str, sae_id: str) -> str:
    """Path of the stability of an SAE; it is of all seeds of a study at once."""
    return f"results/stability/{study}/{PurePosixPath(sae_id).parent}/stability.json"


def _has_seeds(study: StudyPlan) -> bool:
    """Stability needs a second seed."""
    return len({PurePosixPath(sae).parent for sae in study.saes}) < len(study.saes)


MEASURE = Measure(
    "stability",
    writes="atlas.stability.study_table.write_stability_table",
    inputs={"summaries": lambda study: [summary_of(study.name, sae) for sae in study.saes]},
    params={"summaries_by": lambda study: study.saes},
    figure=Figure(
        "atlas.stability.figure.draw_stability",
        kind="stability and drift",
        inputs={"stability": "results/{study}_stability.csv", "health": "results/{study}_health.csv"},
        drawn=_has_seeds,
    ),
)
