"""A study with its rows, as its measures see it when the workflow is planned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from atlas.config.rows import SaeRow
from atlas.config.sections import AtlasConfig


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


def metrics_of(sae_id: str, shift: str | None = None) -> str:
    """Path of the metrics of an SAE, where it was trained or under a shift."""
    return (
        f"results/metrics/{sae_id}/metrics.json" if shift is None else f"results/shifted/{sae_id}/{shift}/metrics.json"
    )
