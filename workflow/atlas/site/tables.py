"""Read the tables of the latents of one SAE: one look-up by latent for each table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from atlas.autointerp.outcome import Deciding, judged_latents, latent_outcomes
from atlas.errors import EvaluationError
from atlas.tables import read_arrow, read_parquet

# Columns of autointerp's table of latents that a site without labels lacks.
_NO_SCORES = pd.DataFrame({"latent": [], "scorer": [], "negatives": [], "score_low": [], "specificity_low": []})


@dataclass(frozen=True)
class AllLabels:
    """labels, scores and tokens of autointerp, which have the random dictionary's too, and what decides."""

    labels: Path
    scores: Path
    tokens: Path
    deciding: Deciding


@dataclass(frozen=True)
class TableFiles:
    """latents.parquet, stability's latents.parquet, and of autointerp latents.parquet and answers.parquet or None."""

    latents: Path
    partners: Path
    labels: Path | None = None
    answers: Path | None = None
    all_labels: AllLabels | None = None


@dataclass(frozen=True, eq=False)
class Tables:
    """Rows of one SAE; `by_corpus` and `random` are indexed by (corpus, latent), `labelled` by latent."""

    by_corpus: pd.DataFrame
    random: pd.DataFrame
    labelled: pd.DataFrame
    partners: pd.DataFrame
    answers: pd.DataFrame | None
    home: str

    @classmethod
    def read(cls, files: TableFiles, seed: int, sae_sha256: str) -> "Tables":
        """Raises EvaluationError when a table is of another SAE than `sae_sha256`."""
        rows = read_of_sae(files.latents, sae_sha256)
        own = rows[rows.dictionary == "sae"]
        home = own[own.role == "in_sample"].corpus.iloc[0]
        labelled = (
            _without_labels(own) if files.labels is None else read_of_sae(files.labels, sae_sha256).set_index("latent")
        )
        partners = read_parquet(files.partners)
        return cls(
            own.set_index(["corpus", "latent"]),
            rows[(rows.dictionary == "random") & (rows.corpus == home)],
            labelled,
            partners[partners.seed == seed].set_index("latent"),
            None if files.answers is None else read_of_sae(files.answers, sae_sha256),
            home,
        )

    @classmethod
    def of_random(cls, files: TableFiles, sae_sha256: str) -> "Tables":
        """Of the random dictionary beside an SAE; it has no partners in other seeds, and no answers."""
        every = read_of_sae(files.latents, sae_sha256)
        own = every[every.dictionary == "random"]
        if files.all_labels is None:
            labelled = _without_labels(own)
        else:
            given = files.all_labels
            read = (read_of_sae(path, sae_sha256) for path in (given.labels, given.scores, given.tokens))
            labelled = judged_latents(every, *read, deciding=given.deciding, dictionary="random").set_index("latent")
        home = own[own.role == "in_sample"].corpus.iloc[0]
        none = pd.DataFrame({"partner": []}, pd.Index([], name="latent"))
        return cls(own.set_index(["corpus", "latent"]), own[own.corpus == home], labelled, none, None, home)

    @property
    def n_latents(self) -> int:
        """Size of the dictionary."""
        return len(self.labelled)

    @cached_property
    def at_home(self) -> pd.DataFrame:
        """Rows on the in-sample corpus, by latent."""
        return self.by_corpus.loc[self.home].sort_index()

    @cached_property
    def corpora(self) -> list[str]:
        """Evaluation corpora in the order of the table: from near to far."""
        return list(dict.fromkeys(self.by_corpus.index.get_level_values(0)))

    @cached_property
    def _records(self) -> dict[str, list[dict[str, Any]]]:
        return {name: self.by_corpus.loc[name].sort_index().to_dict("records") for name in self.corpora}

    def of(self, latent: int) -> dict[str, dict[str, Any]]:
        """Rows of a latent by corpus."""
        return {name: records[latent] for name, records in self._records.items()}

    @cached_property
    def labels(self) -> list[dict[str, Any]]:
        """Label, outcome and scores of each latent; missing values are None."""
        frame = self.labelled.sort_index()
        return frame.astype(object).where(frame.notna(), None).to_dict("records")

    @cached_property
    def partners_of(self) -> Mapping[int, list[dict[str, Any]]]:
        """Partners of each latent in other seeds."""
        found: dict[int, list[dict[str, Any]]] = {}
        for row in self.partners.reset_index().astype(object).to_dict("records"):
            found.setdefault(row["latent"], []).append(row)
        return found

    @cached_property
    def answers_of(self) -> Mapping[int, list[dict[str, Any]]]:
        """Answers on each latent's label of the scorer whose scores the latent has; empty without labels."""
        found: dict[int, list[dict[str, Any]]] = {}
        if self.answers is None:
            return found
        deciding = self.labelled.scorer.reindex(self.answers.latent).to_numpy()
        for row in self.answers[self.answers.scorer == deciding].to_dict("records"):
            found.setdefault(row["latent"], []).append(row)
        return found


def _without_labels(rows: pd.DataFrame) -> pd.DataFrame:
    outcomes = latent_outcomes(rows, _NO_SCORES, pd.DataFrame(), {})
    return outcomes.assign(label=None).set_index("latent")


def read_of_sae(path: Path, sae_sha256: str) -> pd.DataFrame:
    """A table; raises EvaluationError when its metadata name another SAE."""
    table = read_arrow(path)
    found = (table.schema.metadata or {}).get(b"sae_sha256", b"").decode()
    if found != sae_sha256:
        raise EvaluationError(
            f"{path}: is of an SAE with hash {found!r}, expected {sae_sha256!r}; delete it, run again"
        )
    return table.to_pandas()
