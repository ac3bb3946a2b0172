"""First-letter absorption of the SAEs of a study."""

from atlas.config.plan import SaePlan
from atlas.measure import Measure, Stage
from atlas.sae_ids import SaeId


def _raw(sae: SaePlan) -> str:
    """Absorption of the raw activation's dimensions, of which the dictionary is known alone."""
    return f"results/absorption/{sae.row.model}/{SaeId.parse(sae.sae_id).hooks}/{sae.row.mix}/raw.json"


ABSORPTION = Stage(
    "absorption",
    runs="atlas.absorption.run.run_absorption",
    says="Absorption of",
    inputs={
        "rows_file": lambda sae: f"results/absorption/{sae.row.model}/rows.safetensors",
        "raw_file": _raw,
        "sae_folder": lambda sae: sae.pair,
        "train_shards": lambda sae: sae.training_facts,
    },
    outputs={"target": "results/absorption/{sae}/absorption.json"},
    params={"settings": lambda sae: sae.settings("absorption")},
    holds=("codes",),
    minutes=120,
    gpu=True,
)

MEASURE = Measure(
    "absorption",
    stages=(ABSORPTION,),
    writes="atlas.absorption.study_table.write_absorption_table",
    per_sae={"results": "results/absorption/{sae}/absorption.json"},
)
