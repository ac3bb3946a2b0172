"""Votes of blind readers on a study's sheet, beside what is said of the same latents automatically."""

from pathlib import Path

from atlas.config.plan import StudyPlan
from atlas.errors import ConfigError
from atlas.measure import Measure, of_saes


def _votes(study: StudyPlan) -> list[str]:
    """Files with votes; absolute, so that no `prefix` of a module touches them."""
    files = study.config.reading.votes.get(study.name, ())
    if not files:
        raise ConfigError(
            f"reading.votes names no file for study {study.name!r}: make results/{study.name}_reading.html, mark it, "
            "save the file, and name it there"
        )
    return [str(Path(path).absolute()) for path in files]


MEASURE = Measure(
    "reading",
    writes="atlas.blind_reading.agreement.write_reading_table",
    inputs={
        "key": lambda study: f"results/{study.name}_reading.json",
        "votes": _votes,
        "folder": of_saes("results/saes/{sae}/sae_weights.safetensors"),
        "latents": of_saes("results/latents/{sae}/latents.parquet"),
        "labels": of_saes("results/autointerp/{sae}/labels.parquet"),
        "scores": of_saes("results/autointerp/{sae}/scores.parquet"),
        "tokens": of_saes("results/autointerp/{sae}/tokens.parquet"),
    },
    params={
        "files_by": lambda study: study.saes,
        "settings": lambda study: study.config.autointerp.model_dump(
            mode="json", include={"explainers", "scorers", "seeds", "client"}
        ),
    },
    memory_mb=2000,
)
