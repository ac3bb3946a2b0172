"""Measures of later stages beside twins: planted values in, the right kind of difference and word out."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from atlas.errors import EvaluationError
from atlas.files import write_json
from atlas.statistics.intervals import welch_interval
from atlas.tables import read_csv, write_parquet
from atlas.twins.downstream import MeasuredValue, hold_against, read_stage
from atlas.twins.study_table import write_learnt_table

OWN, TWIN, OTHER = "m/resid_post.1/x/r/seed-0", "m/resid_post.1/x/r.near_decoder/seed-0", "m/x"


def sample(mean: float, n: int = 200, seed: int = 0, spread: float = 0.1) -> np.ndarray:
    return mean + spread * np.random.default_rng(seed).normal(size=n)


def test_welchs_interval_is_scipys():
    first, second = sample(0.5, 30), sample(0.4, 50, seed=1, spread=0.3)
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert welch_interval(first, second) == pytest.approx([expected.low, expected.high], rel=1e-9)
    assert welch_interval(first[:3], second) is None
    assert welch_interval(np.ones(5), np.zeros(5)) == [1.0, 1.0]


def test_latents_are_independent_samples():
    own, twin = MeasuredValue(0.6, sample=sample(0.6)), MeasuredValue(0.5, sample=sample(0.5, seed=1))
    value, interval, n = own.better_by(twin)
    assert value == pytest.approx(own.sample.mean() - twin.sample.mean()) and n == 200
    assert interval == welch_interval(own.sample, twin.sample)


def test_data_sets_are_paired_so_that_what_they_share_cancels():
    level = dict(zip("abcdef", np.linspace(0.5, 0.9, 6), strict=True))
    twin = MeasuredValue(0.7, paired=level)
    own = MeasuredValue(
        0.71, paired={name: value + 0.01 + 0.001 * place for place, (name, value) in enumerate(level.items())}
    )
    value, interval, n = own.better_by(twin)
    assert value == pytest.approx(0.0125) and n == 6 and 0 < interval[0] < interval[1] < 0.03


def test_only_shared_items_count_and_lower_may_be_better():
    own = MeasuredValue(0.1, higher_is_better=False, paired={"A": 0.1, "B": 0.1, "C": 0.1, "D": 0.12, "Z": 0.9})
    twin = MeasuredValue(0.3, higher_is_better=False, paired={"A": 0.3, "B": 0.31, "C": 0.29, "D": 0.3})
    value, interval, n = own.better_by(twin)
    assert (n, value) == (4, pytest.approx(0.195)) and interval[0] > 0


def test_of_intervals_both_are_combined():
    own, twin = MeasuredValue(0.5, interval=[0.4, 0.6]), MeasuredValue(0.2, interval=[0.1, 0.3])
    value, interval, _ = own.better_by(twin)
    assert value == pytest.approx(0.3)
    assert interval == pytest.approx([0.3 - np.hypot(0.1, 0.1), 0.3 + np.hypot(0.1, 0.1)])
    assert own.better_by(MeasuredValue(0.2))[1] is None


def test_what_is_not_known_is_unresolved():
    found = hold_against({"x": MeasuredValue(None)}, {"near_decoder": {"x": MeasuredValue(0.5, sample=sample(0.5))}})[
        "x"
    ]
    assert (found["better_by"], found["learnt"]) == (None, "unresolved")
    found = hold_against({"x": MeasuredValue(0.5, sample=sample(0.5))}, {"near_decoder": {}})["x"]
    assert (found["best_twin"], found["learnt"]) == (None, "unresolved")


def latents(path, z: float):
    rows = pd.DataFrame({"dictionary": "sae", "corpus": "chat", "role": "in_sample", "coherence_z": sample(z, 50)})
    random, away = rows.assign(dictionary="random", coherence_z=9.0), rows.assign(role="oos", coherence_z=9.0)
    write_parquet(path, pd.concat([rows, random, away]))


def scores(path, value: float):
    rows = pd.DataFrame({"dictionary": "sae", "explainer": "lexical", "scorer": "words", "negatives": "random"}, [0])
    rows = rows.loc[np.zeros(40, int)].assign(score=sample(value, 40, spread=0.01))
    write_parquet(
        path, pd.concat([rows, rows.assign(explainer=None, scorer="intruder"), rows.assign(negatives="hard")])
    )


def stability(path, value: float):
    measure = {"value": value, "interval": [value - 0.05, value + 0.05]}
    own = {"firing": dict.fromkeys(("pw_mcc", "mmcs", "shared"), measure)}
    write_json(path, {"saes": {"0": own}})


def probing(path, value: float):
    datasets = {
        name: {"k": {"1": {"sae": {"auc": value + 0.01 * place}}, "5": {"sae": {"auc": value}}}}
        for place, name in enumerate("abcde")
    }
    write_json(path, {"datasets": datasets})


def absorption(path, value: float):
    letters = [
        {"letter": letter, "mean_absorption_fraction": 1 - value + 0.001 * place, "full_absorption_rate": 1 - value}
        for place, letter in enumerate("ABCDEF")
    ]
    write_json(path, {"valid": True, "letters": letters})


WRITERS = {"latents": latents, "labels": scores, "stability": stability, "probing": probing, "absorption": absorption}
NAMES = {
    "latents": ["coherence_z", "coherent_share"],
    "labels": ["label_lexical_words", "intruder_intruder"],
    "stability": ["stability_pw_mcc", "stability_mmcs", "stability_shared"],
    "probing": ["probing_auc_k1", "probing_auc_k5"],
    "absorption": ["mean_absorption_fraction", "full_absorption_rate"],
}


@pytest.mark.parametrize("stage", WRITERS)
def test_each_stage_is_read_and_a_better_dictionary_has_learnt(tmp_path, stage):
    for name, value in (("own", 0.9), ("twin", 0.4), ("same", 0.9)):
        WRITERS[stage](tmp_path / name, value if stage != "latents" else 5 * value)
    own, twin, same = (read_stage(stage, tmp_path / name, OWN) for name in ("own", "twin", "same"))
    found = hold_against(own, {"frozen_decoder": twin})
    assert list(found) == NAMES[stage]
    assert {measure["learnt"] for name, measure in found.items() if name != "coherent_share"} == {"yes"}
    assert {measure["learnt"] for measure in hold_against(own, {"frozen_decoder": same}).values()} == {"unresolved"}
    worse = {measure["learnt"] for name, measure in hold_against(twin, {"t": own}).items() if name != "coherent_share"}
    assert worse == {"no"}


def test_absorption_that_does_not_count_has_no_value(tmp_path):
    write_json(tmp_path / "a", {"valid": False, "letters": []})
    assert {found.value for found in read_stage("absorption", tmp_path / "a", OWN).values()} == {None}


@pytest.mark.parametrize("stage", ["latents", "labels"])
def test_tables_without_the_sae_are_refused(tmp_path, stage):
    WRITERS[stage](tmp_path / "own", 0.5)
    rows = pd.read_parquet(tmp_path / "own")
    write_parquet(tmp_path / "own", rows.assign(dictionary="random"))
    with pytest.raises(EvaluationError, match=r"own: has no .* of m/resid_post.*delete it and run again"):
        read_stage(stage, tmp_path / "own", OWN)


def test_another_recipes_seeds_are_refused(tmp_path):
    stability(tmp_path / "s", 0.5)
    with pytest.raises(EvaluationError, match="has no seed 7"):
        read_stage("stability", tmp_path / "s", OWN.replace("seed-0", "seed-7"))


def test_the_table_has_every_stage_of_every_sae(tmp_path):
    measure = {"value": 0.8, "twins": {"near_decoder": 0.7}, "best_twin": "near_decoder", "best_value": 0.7}
    measure |= {"better_by": 0.1, "interval": [0.05, 0.15], "n_documents": 20, "learnt": "yes"}
    write_json(tmp_path / "twins.json", {"sae_id": OWN, "corpora": {"chat": {"measures": {"kl": measure}}}})
    for name, value in (("own", 4.0), ("twin", 1.0)):
        latents(tmp_path / name, value)
    files = {("latents", OWN): tmp_path / "own", ("latents", TWIN): tmp_path / "twin"}
    write_learnt_table(
        "s",
        {OWN: tmp_path / "twins.json"},
        {OWN: ["chat"]},
        {OWN: {"near_decoder": TWIN}},
        ["latents"],
        files,
        tmp_path / "s.csv",
    )
    table = read_csv(tmp_path / "s.csv").set_index("measure")
    assert list(table.index) == ["kl", "coherence_z", "coherent_share"]
    assert list(table.stage) == ["evaluation", "latents", "latents"]
    assert (table.learnt["kl"], table.over["kl"], table.n["kl"]) == ("yes", "documents", 20)
    assert (table.learnt["coherence_z"], table.over["coherence_z"]) == ("yes", "latents")
    assert table.twin_near_decoder["coherence_z"] == pytest.approx(1.0, abs=0.05)
    assert table.better_by["coherence_z"] == pytest.approx(3.0, abs=0.1)
