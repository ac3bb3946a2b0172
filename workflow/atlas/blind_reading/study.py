"""Votes of blind readers on a study's sheet, beside what is said of the same latents automatically."""

from pathlib import Path

from atlas.config.plan import StudyPlan
from atlas.errors import ConfigError
from atlas.measure import Finds, Measure


def _votes(study: StudyPlan) -> list[str]:
    """Files with votes; absolute, so that no `prefix` of a module touches them."""
    files = study.config.reading.votes.get(study.name, ())
    if not files:
        raise ConfigError(
            f"reading.votes names no file for study {study.name!r}: make results/{study.name}_reading.html, mark it, "
            "save the file, and name it there"
        )
    return [str(Path(path).absolute()) for path in files]


def _read_saes(study: StudyPlan) -> list[str]:
    """SAEs on the sheet: the study's, and their twins."""
    twins = [twin.sae_id for kinds in study.twins.values() for twin in kinds.values()]
    return [*study.saes, *(twins if study.config.reading.twin_latents else [])]


def _files(pattern: str) -> Finds:
    return lambda study: [pattern.format(sae=sae) for sae in _read_saes(study)]


MEASURE = Measure(
    "reading",
    writes="atlas.blind_reading.agreement.write_reading_table",
    inputs={
        "key": lambda study: f"results/{study.name}_reading.json",
        "votes": _votes,
        "folder": _files("results/saes/{sae}/sae_weights.safetensors"),
        "latents": _files("results/latents/{sae}/latents.parquet"),
        "labels": _files("results/autointerp/{sae}/labels.parquet"),
        "scores": _files("results/autointerp/{sae}/scores.parquet"),
        "tokens": _files("results/autointerp/{sae}/tokens.parquet"),
    },
    params={
        "files_by": _read_saes,
        "settings": lambda study: study.config.autointerp.model_dump(
            mode="json", include={"explainers", "scorers", "seeds", "client"}
        ),
    },
    memory_mb=2000,
)
