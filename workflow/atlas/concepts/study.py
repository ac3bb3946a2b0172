"""Labelled concepts of the SAEs of a study."""

from atlas.measure import Measure, Stage

_OF_PROBING = {"source", "datasets", "max_prompts", "max_tokens", "test_share", "splits"}

CONCEPTS = Stage(
    "concepts",
    runs="atlas.concepts.run.run_concepts",
    says="Labelled concepts of",
    inputs={
        "model": lambda sae: sae.model,
        "rows": lambda sae: f"results/probing/{sae.row.model}/rows.safetensors",
        "sae_folder": lambda sae: sae.pair,
        "train_shards": lambda sae: sae.training_facts,
        "shards": lambda sae: sae.shards([sae.corpus]),
        "source": lambda sae: sae.source_files("probing", sae.config.probing),
        "embedder": lambda sae: sae.embedder,
    },
    outputs={"result": "results/concepts/{sae}/concepts.json"},
    params={
        "concepts": lambda sae: sae.settings("concepts"),
        "probing": lambda sae: sae.settings("probing", include=_OF_PROBING),
    },
    holds=("probing", "model", "codes"),
    minutes=240,
    threads_of_model=True,
    gpu=True,
)

MEASURE = Measure(
    "concepts",
    stages=(CONCEPTS,),
    writes="atlas.concepts.study_table.write_concepts_table",
    per_sae={"results": "results/concepts/{sae}/concepts.json"},
)
