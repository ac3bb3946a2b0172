"""Three sheets of the embedded sweep that were read blind: the outcome's rule against the readers' votes.

`data/readings.csv` has 180 latents with the votes of two or three readers each, and the scores that outcomes are made
from, as the sweep gave them once. The test computes outcomes from the scores anew.
"""

from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from atlas.autointerp.by_context import FACTS, column
from atlas.autointerp.outcome import latent_outcomes

READERS = ("ada", "ben", "cleo", "dana", "eli", "fay", "gus")
SCORERS = ("words", "embedding")
# Outcomes that the firing rate alone decides; the rates are not in the file.
BY_RATE = ("noisy",)


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parent / "data/readings.csv")


def clear(rows: pd.DataFrame) -> pd.Series:
    """Return which latents the median reader calls clear; of two readers both."""
    votes = (rows[list(READERS)] == "clear").sum(axis=1)
    return votes >= rows[list(READERS)].notna().sum(axis=1) // 2 + 1


def computed(rows: pd.DataFrame) -> pd.Series:
    """Compute the outcome of each latent of one SAE's dictionary from its scores."""
    rows = rows.reset_index(drop=True)
    home = pd.DataFrame({"latent": rows.index, "role": "in_sample", "status": "alive"})
    scores = pd.concat(
        pd.DataFrame(
            {
                "latent": rows.index,
                "scorer": scorer,
                "negatives": "random",
                **{name: rows[f"{scorer}_{name}"] for name in ("score", "score_low", "specificity_low")},
            }
        )
        for scorer in SCORERS
    )
    by_fact = pd.DataFrame({fact: rows[column(fact)] for fact in FACTS})
    limits = {name: rows[f"limit {name}"].iloc[0] for name in (*FACTS, *SCORERS)}
    return latent_outcomes(home.assign(max_cosine=0.0, density=0.0), scores, by_fact, limits).outcome


def test_outcomes_follow_from_the_scores(readings):
    for _, rows in readings.groupby(["hook", "dictionary"]):
        known = ~rows.outcome.isin(BY_RATE).to_numpy()
        assert computed(rows)[known].tolist() == rows.outcome[known].tolist()


def test_readers_agree_with_each_other_and_the_outcome_follows_them(readings):
    """On the sheets that had no part in the rule of facts kappa is .66; that of two readers is .86 or more."""
    for _, rows in readings.groupby("sheet"):
        read = rows[[name for name in READERS if rows[name].notna().any()]] == "clear"
        assert cohen_kappa_score(read.iloc[:, 0], read.iloc[:, 1]) > 0.8
        shares = clear(rows).groupby(rows.dictionary).mean()
        assert shares["random"] <= 0.1 and shares["sae"] >= 0.5
    fresh = readings[readings.sheet > 1]
    kappa = cohen_kappa_score(fresh.outcome == "good", clear(fresh))
    assert kappa > 0.65
    for _, rows in fresh.groupby("sheet"):
        assert cohen_kappa_score(rows.outcome == "good", clear(rows)) > 0.6
    assert kappa > cohen_kappa_score(fresh.outcome_before == "good", clear(fresh))
