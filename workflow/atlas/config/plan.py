"""A study with its rows, and an SAE, as measures see them when the workflow is planned."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from atlas.config.rows import SaeRow
from atlas.config.sections import AtlasConfig
from atlas.config.store_files import StoreFiles


@dataclass(frozen=True)
class StudyPlan:
    """A study of a configuration; `twins` are those of its SAEs, by SAE and kind."""

    name: str
    rows: Sequence[SaeRow]
    config: AtlasConfig
    twins: Mapping[str, Mapping[str, SaeRow]]

    @cached_property
    def by_sae(self) -> dict[str, SaeRow]:
        """A row of each SAE, in the order of the rows."""
        found: dict[str, SaeRow] = {}
        for row in self.rows:
            found.setdefault(row.sae_id, row)
        return found

    @property
    def saes(self) -> list[str]:
        """Ids of the SAEs, each once."""
        return list(self.by_sae)

    @property
    def corpora(self) -> dict[str, list[str]]:
        """Evaluation corpora by SAE, and by SAE and shift: another study may have more for the same SAE."""
        at_home = {row.sae_id: list(row.roles) for row in self.rows}
        return at_home | {row.judged_id: list(row.judged.roles) for row in self.rows}

    @property
    def in_sample(self) -> dict[str, str]:
        """The corpus of training on whose held-out documents each SAE is judged."""
        return {sae: row.in_sample_corpus for sae, row in self.by_sae.items()}

    @property
    def is_planted(self) -> bool:
        """True if a row has a planted model."""
        return any(self.config.models[row.model].is_planted for row in self.rows)

    @property
    def has_pages(self) -> bool:
        """True if the site shows its SAEs: of the studies that the site names, else of the first."""
        return self.name in (self.config.site.studies or tuple(self.config.studies)[:1])


@dataclass(frozen=True)
class SaePlan:
    """An SAE of a configuration, with what all studies that hold it ask of it."""

    row: SaeRow
    roles: Mapping[str, str]  # corpora on which it is evaluated where it was trained, with their roles
    twins: Mapping[str, SaeRow]  # by kind
    config: AtlasConfig
    store: StoreFiles
    results: str  # the folder of results, for params: Snakemake prefixes only inputs and outputs
    # Files that the source of an entry of the configuration is in, by the entry's key.
    source_files: Callable[[str, Any], list[str]]

    @property
    def sae_id(self) -> str:
        """Its id."""
        return self.row.sae_id

    @property
    def model(self) -> str:
        """Folder of its prepared model."""
        return f"results/models/{self.row.model}"

    @property
    def pair(self) -> list[str]:
        """Both files of the SAE, for a function that takes its folder."""
        return [f"results/saes/{self.sae_id}/{name}" for name in ("sae_weights.safetensors", "cfg.json")]

    @property
    def metrics(self) -> str:
        """Its metrics, where it was trained."""
        return metrics_of(self.sae_id)

    @cached_property
    def training_facts(self) -> list[str]:
        """Files that say what its training rows are like."""
        return self.store.training_facts(self.row.mix, self.row.model)

    @property
    def corpus(self) -> str:
        """The corpus of its training on whose held-out documents it is evaluated."""
        return self.row.in_sample_corpus

    def shards(self, corpora: Iterable[str]) -> list[str]:
        """Activation files of held-out documents of these corpora."""
        return [path for corpus in corpora for path in self.store.shards(self.row.model, corpus, "eval")]

    def codes(self, corpora: Iterable[str], random: bool = False) -> list[str]:
        """Its codes of these corpora, or those of the random dictionary beside it."""
        folder = f"results/codes/{self.sae_id}{'/random' if random else ''}"
        return [f"{folder}/{corpus}.h5" for corpus in corpora]

    @property
    def embedder(self) -> list[str]:
        """Folder of the sentence encoder, if there is one."""
        return [] if self.config.latents.embedder is None else ["results/embedder"]

    def windows(self, corpora: Iterable[str]) -> list[str]:
        """Embedded windows of these corpora, if there is a sentence encoder."""
        return [f"results/windows/{self.row.model}/{corpus}.h5" for corpus in corpora if self.embedder]

    def settings(self, section: str, **selected: Any) -> dict[str, Any]:
        """A section of the configuration as plain values; `selected` are pydantic's `include` and `exclude`."""
        return getattr(self.config, section).model_dump(mode="json", **selected)


def metrics_of(sae_id: str, shift: str | None = None) -> str:
    """Path of the metrics of an SAE, where it was trained or under a shift."""
    return (
        f"results/metrics/{sae_id}/metrics.json" if shift is None else f"results/shifted/{sae_id}/{shift}/metrics.json"
    )
