"""Latents of the SAEs of a study: all in one table, and their health in another."""

from atlas.config.plan import StudyPlan
from atlas.measure import Figure, Measure, Stage


def _has_health(study: StudyPlan) -> bool:
    """Health is of SAEs on text, where they were trained."""
    return any(row.shift is None for row in study.rows) and not study.is_planted


LATENTS = Stage(
    "latents",
    runs="atlas.latents.run.run_latents",
    says="Latents of",
    inputs={
        "model": lambda sae: sae.model,
        "sae": lambda sae: sae.pair,
        "train_shards": lambda sae: sae.training_facts,
        "metrics": lambda sae: sae.metrics,
        "codes": lambda sae: sae.codes(sae.roles),
        "random_codes": lambda sae: sae.codes(sae.roles, random=True),
        "embedder": lambda sae: sae.embedder,
        "windows": lambda sae: sae.windows(sae.roles),
    },
    outputs={"table": "results/latents/{sae}/latents.parquet", "summary": "results/latents/{sae}/latents.json"},
    params={
        "roles": lambda sae: sae.roles,
        "codes_by": lambda sae: list(sae.roles),
        "random_codes_by": lambda sae: list(sae.roles),
        "windows_by": lambda sae: list(sae.roles) if sae.embedder else [],
        "latents": lambda sae: sae.settings("latents", exclude={"embedder"}),
        "dead_min_tokens": lambda sae: sae.config.evaluation.dead_min_tokens,
        "bootstrap_samples": lambda sae: sae.config.evaluation.bootstrap_samples,
    },
    holds=("codes",),
    minutes=240,
    reads_rows=True,
    threads_of_model=True,
)

MEASURE = Measure(
    "latents",
    stages=(LATENTS,),
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
