"""Effects of latents of the SAEs of a study."""

from atlas.config.plan import SaePlan
from atlas.measure import Measure, Stage


def _twins(sae: SaePlan) -> dict[str, str]:
    """Ids of the twins that are measured as nulls, by kind; none unless asked for, or without a study that has them."""
    twins = sae.twins if sae.config.causal.twins else {}
    return {kind: twin.sae_id for kind, twin in twins.items()}


def _labels(sae: SaePlan) -> list[str]:
    return [f"results/autointerp/{sae.sae_id}/labels.parquet"] if sae.config.causal.labels else []


EFFECTS = Stage(
    "effects",
    runs="atlas.causal.run.run_effects",
    says="Effects of latents of",
    waits_for=lambda sae: [f"results/saes/{twin}/cfg.json" for twin in _twins(sae).values()],
    inputs={
        "model": lambda sae: sae.model,
        "sae": lambda sae: sae.pair,
        "codes": lambda sae: sae.codes([sae.corpus]),
        "shards": lambda sae: sae.shards([sae.corpus]),
        "labels": _labels,
        "twins": lambda sae: [f"results/saes/{twin}/sae_weights.safetensors" for twin in _twins(sae).values()],
    },
    outputs={
        **{name: f"results/effects/{{sae}}/{name}.parquet" for name in ("effects", "doses", "tokens", "continuations")},
        "summary": "results/effects/{sae}/effects.json",
    },
    params={
        "corpus": lambda sae: sae.corpus,
        "settings": lambda sae: sae.settings("causal", exclude={"twins"}),
        "twins_by": lambda sae: list(_twins(sae)),
    },
    holds=("model", "model", "codes"),
    minutes=240,
    threads_of_model=True,
    gpu=True,
)

MEASURE = Measure(
    "effects",
    stages=(EFFECTS,),
    writes="atlas.causal.study_table.write_effects_table",
    per_sae={"summaries": "results/effects/{sae}/effects.json"},
)
