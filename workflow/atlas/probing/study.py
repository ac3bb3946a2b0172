"""Sparse probes of the SAEs of a study."""

from atlas.measure import Measure, Stage

PROBING = Stage(
    "probing",
    runs="atlas.probing.run.run_probing",
    says="Probing",
    inputs={
        "rows_file": lambda sae: f"results/probing/{sae.row.model}/rows.safetensors",
        "sae_folder": lambda sae: sae.pair,
        "train_shards": lambda sae: sae.training_facts,
    },
    outputs={"target": "results/probing/{sae}/probing.json"},
    params={"settings": lambda sae: sae.settings("probing")},
    holds=("codes",),
    minutes=120,
    gpu=True,
)

MEASURE = Measure(
    "probing",
    stages=(PROBING,),
    writes="atlas.probing.study_table.write_probing_table",
    per_sae={"results": "results/probing/{sae}/probing.json"},
)
