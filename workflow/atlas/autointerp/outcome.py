"""The outcome of a latent: one regime, the first whose rule fires. docs/metrics.md, section 14."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from atlas.config.autointerp import Autointerp
from atlas.errors import EvaluationError
from atlas.files import atomic_path

# As in the outcome of an SAE: latents whose decoder cosine is above this are copies (docs/metrics.md, section 7).
CLOSE_COPY = 0.9
OUTCOMES = ("dead", "untested", "duplicated", "noisy", "unscored", "uninterpreted", "deceptively-good", "good")
_MEASURES = ("score", "score_low", "score_high", "shuffled", "blind", "specificity", "specificity_low")


def write_latent_outcomes(latents: Path, labels: Path, scores: Path, settings: Autointerp, target: Path) -> None:
    """Write one row per latent of the SAE: label, scores on both kinds of negatives, outcome.

    Explainer, scorer and seed are the first configured. Raises EvaluationError when the tables are of different SAEs.
    """
    tables = [pq.read_table(path) for path in (latents, labels, scores)]
    about = [table.schema.metadata for table in tables]
    for path, found in zip((labels, scores), about[1:], strict=True):
        if found != about[0]:
            raise EvaluationError(f"{path}: is of {found}, but {latents} is of {about[0]}; delete it and run again")
    own = [table.to_pandas() for table in tables]
    rows = judged_latents(*own, Deciding.of(settings))
    written = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(about[0])
    with atomic_path(target) as temporary:
        pq.write_table(written, temporary)


@dataclass(frozen=True)
class Deciding:
    """Whose labels, tests and documents decide on a latent: the first configured."""

    explainer: str
    scorer: str
    seed: int

    @classmethod
    def of(cls, settings: Autointerp) -> "Deciding":
        """Of a configuration."""
        return cls(settings.explainers[0], settings.scorers[0], settings.seeds[0])


def judged_latents(
    latents: pd.DataFrame, labels: pd.DataFrame, scores: pd.DataFrame, deciding: Deciding, dictionary: str = "sae"
) -> pd.DataFrame:
    """One row per latent of a dictionary: label, scores on both kinds of negatives, outcome."""
    latents, labels, scores = (rows[rows.dictionary == dictionary] for rows in (latents, labels, scores))
    label = labels[(labels.explainer == deciding.explainer) & (labels.seed == deciding.seed)].set_index("latent")
    score = scores[(scores.explainer == deciding.explainer) & (scores.scorer == deciding.scorer)]
    outcomes = latent_outcomes(latents, score)
    rows = pd.DataFrame({"latent": outcomes.index, "outcome": outcomes.to_numpy()})
    rows["label"] = label.label.reindex(outcomes.index).to_numpy()
    for kind, part in score.groupby("negatives"):
        part = part.set_index("latent").reindex(outcomes.index)
        for name in ("n_positives", "n_negatives"):
            rows[f"{kind}_{name}"] = pd.array(part[name].to_numpy(), dtype="Int64")
        rows[f"{kind}_reason"] = part["reason"].to_numpy()
        rows = rows.assign(**{f"{kind}_{name}": part[name].astype(float).to_numpy() for name in _MEASURES})
    return rows


def latent_outcomes(latents: pd.DataFrame, scores: pd.DataFrame) -> pd.Series:
    """Outcome of each latent of an SAE, indexed by latent.

    `latents` are its rows of latents.parquet, one per latent and corpus; `scores` its rows of the deciding explainer
    and scorer, one per latent and kind of negatives. A latent that was not scored on random negatives is `unscored`.
    """
    alive = set(latents.latent[latents.status == "alive"])
    # Of several in-sample corpora the first, where drift starts too: rows stand in the order of the corpora.
    home = latents[latents.role == "in_sample"].drop_duplicates("latent").set_index("latent")
    score = scores[scores.negatives == "random"].set_index("latent").reindex(home.index)
    fires = home.index.isin(alive)
    conditions = [
        ~fires & (home.status == "dead"),
        ~fires,
        home.max_cosine > CLOSE_COPY,
        home.dense,
        score.score_low.isna() | score.specificity_low.isna(),
        ~(score.score_low > 0.5),
        ~(score.specificity_low > 0),
    ]
    chosen = np.select([np.asarray(each, bool) for each in conditions], OUTCOMES[:-1], OUTCOMES[-1])
    return pd.Series(chosen, home.index, name="outcome")
