"""Latents of the SAEs of a study: all in one table, and their health in another."""

from atlas.config.plan import StudyPlan
from atlas.measure import Figure, Measure


def _has_health(study: StudyPlan) -> bool:
    """Health is of SAEs on text, where they were trained."""
    return any(row.shift is None for row in study.rows) and not study.is_planted


MEASURE = Measure(
    "latents",
    writes="atlas.latents.study_table.write_tables",
    per_sae={
        "tables": "results/latents/{sae}/latents.parquet",
        "summaries": "results/latents/{sae}/latents.json",
        "planted": "results/latents/{sae}/planted.json",
    },
    params={"corpora": lambda study: study.corpora},
    outputs={"latents": "results/{study}_latents.parquet", "health": "results/{study}_health.csv"},
    figure=Figure(
        "atlas.latents.figure.draw_health",
        kind="health",
        name="health",
        inputs={"table": "results/{study}.csv", "latents": "results/{study}_latents.parquet"},
        drawn=_has_health,
        memory_mb=4000,
    ),
    memory_mb=2000,
    minutes=20,
)
