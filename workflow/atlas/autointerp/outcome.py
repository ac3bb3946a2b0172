"""The outcome of a latent: one regime, the first whose rule fires. docs/metrics.md, section 14."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from atlas.autointerp.by_context import FACTS, LEAST_TOLD, column
from atlas.autointerp.told import share_of_latents, shares_of_planted
from atlas.config.autointerp import Autointerp
from atlas.errors import EvaluationError
from atlas.evaluation.sparsity import DENSE_RATE
from atlas.files import read_json, write_json
from atlas.tables import read_arrow, write_parquet

# As in the outcome of an SAE: latents whose decoder cosine is above this are copies (docs/metrics.md, section 7).
CLOSE_COPY = 0.9
# A latent is noisy when it fires more often than DENSE_RATE and than this many times the dictionary's mean latent.
NOISY_TIMES_MEAN = 3.0
OUTCOMES = ("dead", "untested", "duplicated", "noisy", "unscored", "uninterpreted", "deceptively-good", "good")
# At most this share of the random dictionary's latents is told by anything.
FALSE_SHARE = 0.05
_MEASURES = ("score", "score_low", "score_high", "shuffled", "blind", "specificity", "specificity_low")


def write_latent_outcomes(
    latents: Path,
    labels: Path,
    scores: Path,
    tokens: Path,
    summary: Path,
    settings: Autointerp,
    target: Path,
    told: Path,
) -> None:
    """Write one row per latent of the SAE: outcome, what tells where it fires, label, scores on all negatives.

    Write told.json too: of how many latents of the SAE, of its random dictionary, and of planted ones something tells.
    Explainer and seed are the first configured. The scores are those of the scorer that tells, or of the first one.
    Raises EvaluationError when the tables are of different SAEs.
    """
    tables = [read_arrow(path) for path in (latents, labels, scores, tokens)]
    about = [table.schema.metadata for table in tables]
    for path, found in zip((labels, scores, tokens), about[1:], strict=True):
        if found != about[0]:
            raise EvaluationError(f"{path}: is of {found}, but {latents} is of {about[0]}; delete it and run again")
    own = [table.to_pandas() for table in tables]
    rows = judged_latents(own[0], own[1], own[2], own[3], Deciding.of(settings))
    written = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(about[0])
    write_parquet(target, written)
    _write_shares(own, rows, Deciding.of(settings), summary, told)


def _write_shares(
    tables: Sequence[pd.DataFrame], outcomes: pd.DataFrame, deciding: "Deciding", summary: Path, target: Path
) -> None:
    """Write told.json; `tables` are those of latents, labels, scores and tokens, `summary` is autointerp.json."""
    latents, labels, scores, tokens = tables
    limits = told_limits(scores[scores.explainer == deciding.explainer], tokens, deciding.scorers)
    asked = labels[(labels.explainer == deciding.explainer) & (labels.seed == deciding.seed)]
    by_dictionary = {"sae": outcomes, "random": judged_latents(latents, labels, scores, tokens, deciding, "random")}
    result = read_json(summary)
    shares = {
        kind: share_of_latents(rows, asked.latent[asked.dictionary == kind]) for kind, rows in by_dictionary.items()
    }
    planted = shares_of_planted(result["ceilings"], limits, deciding.explainer)
    write_json(target, {"sae_id": result["sae_id"], "limits": limits, **shares, "planted": planted})


@dataclass(frozen=True)
class Deciding:
    """Settings that decide on a latent: explainer and seed are the first configured."""

    explainer: str
    scorers: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, settings: Autointerp) -> "Deciding":
        """Of a configuration."""
        return cls(settings.explainers[0], settings.label_scorers, settings.seeds[0])


def judged_latents(
    latents: pd.DataFrame,
    labels: pd.DataFrame,
    scores: pd.DataFrame,
    tokens: pd.DataFrame,
    deciding: Deciding,
    dictionary: str = "sae",
) -> pd.DataFrame:
    """One row per latent of a dictionary: outcome, what tells where it fires, label, scores on all negatives."""
    own = [rows[rows.dictionary == dictionary] for rows in (latents, labels, scores, tokens)]
    label = own[1][(own[1].explainer == deciding.explainer) & (own[1].seed == deciding.seed)].set_index("latent")
    score = own[2][own[2].explainer == deciding.explainer]
    limits = told_limits(scores[scores.explainer == deciding.explainer], tokens, deciding.scorers)
    by_fact = own[3].pivot(index="latent", columns="fact", values="correlation")
    rows = latent_outcomes(own[0], score, by_fact, limits)
    rows["label"] = label.label.reindex(rows.latent).to_numpy()
    rows["scorer"] = rows.told_by.where(rows.told_by.isin(deciding.scorers), deciding.scorers[0])
    rows["limit"] = rows.scorer.map(limits)
    rows["fact_limit"] = rows.told_by.map({fact: limits[fact] for fact in FACTS})
    wanted = pd.MultiIndex.from_frame(rows[["latent", "scorer"]])
    for kind, part in score.groupby("negatives"):
        part = part.set_index(["latent", "scorer"]).reindex(wanted)
        for name in ("n_positives", "n_negatives"):
            rows[f"{kind}_{name}"] = pd.array(part[name].to_numpy(), dtype="Int64")
        rows[f"{kind}_reason"] = part["reason"].to_numpy()
        rows = rows.assign(**{f"{kind}_{name}": part[name].astype(float).to_numpy() for name in _MEASURES})
    return rows


def told_limits(scores: pd.DataFrame, tokens: pd.DataFrame, scorers: Sequence[str]) -> dict[str, float]:
    """Values above which each fact and each scorer tells where a latent fires: at least LEAST_TOLD, and .5.

    Of the random dictionary's latents a share of FALSE_SHARE / (number of measures) lies above each limit, so that at
    most FALSE_SHARE of them are told by anything.
    """
    level = 1 - FALSE_SHARE / (len(FACTS) + len(scorers))
    random = scores[(scores.dictionary == "random") & (scores.negatives == "random")]
    by_fact = tokens[tokens.dictionary == "random"]
    values = {fact: (by_fact.correlation[by_fact.fact == fact], LEAST_TOLD) for fact in FACTS}
    values |= {scorer: (random.score[random.scorer == scorer], 0.5) for scorer in scorers}
    known = {name: (own.dropna().astype(float), floor) for name, (own, floor) in values.items()}
    return {name: max(floor, float(own.quantile(level))) if len(own) else floor for name, (own, floor) in known.items()}


def latent_outcomes(
    latents: pd.DataFrame, scores: pd.DataFrame, by_fact: pd.DataFrame, limits: Mapping[str, float]
) -> pd.DataFrame:
    """Outcome of each latent of an SAE: columns latent, outcome, told_by, noisy_above, and one for each fact.

    `latents` are its rows of latents.parquet, one per latent and corpus; `scores` its rows of the deciding explainer,
    one per latent, scorer and kind of negatives; `by_fact` has the correlations of each fact (columns) by
    latent; `limits` are those of each fact and each scorer. `told_by` is the first of these that tells where the latent
    fires, else None: a fact whose correlation is above the limit, or a scorer with the interval of its score above the
    limit and that of its specificity above 0. A latent that neither has a score on random negatives nor a correlation
    is `unscored`.
    """
    alive = set(latents.latent[latents.status == "alive"])
    # Of several in-sample corpora the first, where drift starts too: rows stand in the order of the corpora.
    home = latents[latents.role == "in_sample"].drop_duplicates("latent").set_index("latent")
    fires = home.index.isin(alive)
    noisy_above = max(DENSE_RATE, NOISY_TIMES_MEAN * float(home.density[fires].mean())) if fires.any() else DENSE_RATE
    correlations = by_fact.reindex(index=home.index, columns=list(FACTS)).astype(float)
    told = pd.Series(None, home.index, dtype=object)
    for fact in FACTS:
        told = told.mask(told.isna() & (correlations[fact] > limits.get(fact, LEAST_TOLD)), fact)
    scored, above = correlations.notna().any(axis=1), pd.Series(False, home.index)
    for scorer in [name for name in limits if name not in FACTS]:
        own = scores[(scores.negatives == "random") & (scores.scorer == scorer)].set_index("latent").reindex(home.index)
        scored |= own.score_low.notna() & own.specificity_low.notna()
        above |= own.score_low > 0.5
        # As everywhere the whole interval: of many scores the largest are large by chance.
        tells = (own.score_low > limits[scorer]) & (own.specificity_low > 0)
        told = told.mask(told.isna() & tells, scorer)
    conditions = [
        ~fires & (home.status == "dead"),
        ~fires,
        home.max_cosine > CLOSE_COPY,
        home.density > noisy_above,
        ~scored,
        told.isna() & ~above,
        told.isna(),
    ]
    chosen = np.select([np.asarray(each, bool) for each in conditions], OUTCOMES[:-1], OUTCOMES[-1])
    return pd.DataFrame(
        {
            "latent": home.index,
            "outcome": chosen,
            "told_by": told.to_numpy(),
            **{column(fact): correlations[fact].to_numpy() for fact in FACTS},
            "noisy_above": noisy_above,
        }
    )
