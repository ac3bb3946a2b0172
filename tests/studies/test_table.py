import json

import pandas as pd
import pytest

from atlas.config.study import Taxonomy
from atlas.errors import EvaluationError
from atlas.evaluation.outcome import judge, published_evidence
from atlas.files import write_json
from atlas.studies.published import published_for, published_rows
from atlas.studies.table import write_study_table
from atlas.tables import read_csv

OUTCOME = {"verdict": "good", "rules": [{"rule": "weak_below", "value": 0.25, "threshold": 0.5}], "unknown": ["dead"]}


def metrics(tmp_path, **atlas) -> dict:
    judged = {
        "n_tokens": 64,
        "n_counted": 60,
        "n_massive": 1,
        "atlas": {"l0": 32.0, "kl": None, "kl_interval": None, "delta_loss_interval": [0.1, 0.2]} | atlas,
        "guide": {"loss_recovered_pct": 97.0},
        "outcome": {"atlas": OUTCOME, "guide": OUTCOME},
        "random": {"l0": 31.0, "outcome": OUTCOME},
        "reasons": {"atlas_kl": "no distribution"},
    }
    return {
        "architecture": "topk",
        "n_latents": 1200,
        "d_model": 576,
        "k": 32,
        "redundancy": {"absorption_guide": {"value": 0.3, "null_mean": 0.1, "null_sd": 0.01, "z": 20.0}},
        "reasons": {"redundancy_x_z": "all equal"},
        "corpora": {"chat": judged | {"role": "in_sample"}, "news": judged | {"role": "oos"}},
    }


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(metrics(tmp_path)))
    saes = {f"m/resid_post.{layer}/chat/topk/seed-{seed}": path for layer in (4, 10) for seed in (0, 1)}
    write_study_table("s", saes, {sae: ["chat", "news"] for sae in saes}, "llama_sweep", tmp_path / "s.csv")
    return pd.read_csv(tmp_path / "s.csv")


def test_one_row_per_sae_and_corpus(table):
    assert len(table) == 8
    assert list(table.corpus[:2]) == ["chat", "news"]
    assert not table.duplicated(["hook", "seed", "corpus"]).any()


def test_a_model_with_random_weights_is_known_from_the_row(tmp_path):
    saes = {}
    for model, seed in (("m", None), ("m-random", 0)):
        path = tmp_path / f"{model}.json"
        path.write_text(json.dumps(metrics(tmp_path) | {"random_weights": seed}))
        saes[f"{model}/resid_post.4/chat/topk/seed-0"] = path
    write_study_table("nulls", saes, {sae: ["chat"] for sae in saes}, None, tmp_path / "nulls.csv")
    table = pd.read_csv(tmp_path / "nulls.csv", keep_default_na=False)
    assert list(table.random_weights) == ["", "seed 0"]


def test_intervals_have_two_columns_even_when_not_defined(table):
    assert table.atlas_delta_loss_interval_low[0] == 0.1
    assert table.atlas_delta_loss_interval_high[0] == 0.2
    assert table.atlas_kl_interval_low.isna().all()
    assert "atlas_kl_interval" not in table


def test_what_is_not_defined_is_empty_and_has_a_reason(table):
    assert table.atlas_kl.isna().all()
    assert json.loads(table.reasons[0]) == {"atlas_kl": "no distribution", "redundancy_x_z": "all equal"}


def test_published_values_stand_beside_the_layer_and_size_they_belong_to(table):
    layer_4 = table[table.layer == 4].iloc[0]
    assert (layer_4.published_loss_recovered_pct, layer_4.published_outcome) == (97.7, "deceptively-good")
    assert table[table.layer == 10].published_l0.isna().all()  # the guide's layer 10 has 400 latents
    assert published_for(None, 4, 1200)["published_l0"] is None


def test_a_transcoder_names_its_target_and_has_no_published_counterpart(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(metrics(tmp_path)))
    saes = {f"m/{hook}/chat/topk/seed-0": path for hook in ("resid_post.4", "mlp_in.4-to-mlp_out.4")}
    write_study_table("s", saes, {sae: ["chat"] for sae in saes}, "llama_sweep", tmp_path / "s.csv")
    table = pd.read_csv(tmp_path / "s.csv")
    assert list(table.hook) == ["resid_post.4", "mlp_in.4"]
    assert pd.isna(table.target_hook[0]) and table.target_hook[1] == "mlp_out.4"
    assert (list(table.site), list(table.layer)) == (["resid_post", "mlp_in"], [4, 4])
    assert table.published_l0.notna().tolist() == [True, False]


def test_outcome_says_which_rules_fired_and_what_is_unknown(table):
    assert table.outcome_because[0] == "weak_below: 0.25 (limit 0.5)"
    assert table.outcome_unknown[0] == "dead"
    assert table.random_outcome[0] == "good"


def test_published_rows_get_the_published_verdicts():
    for row in published_rows().itertuples():
        values = (row.loss_recovered_pct, row.dead_pct, row.absorption)
        evidence = published_evidence(*(None if pd.isna(value) else value for value in values))
        assert judge(evidence, Taxonomy())["verdict"] == row.outcome, row


def comparison(**measure) -> dict:
    known = {"value": 0.8, "twins": {"near_decoder": 0.7}, "best_twin": "near_decoder", "best_value": 0.7}
    known |= {"better_by": 0.1, "interval": [0.05, 0.15], "n_documents": 20, "learnt": "yes"}
    corpus = {"learnt": "yes", "twin_outcomes": {"near_decoder": "noisy"}, "twin_l0": {"near_decoder": 32.0}}
    return {corpus_name: corpus | {"measures": {"kl": known | measure}} for corpus_name in ("chat", "news")}


def test_twins_stand_beside_the_sae_of_their_study(tmp_path):
    sae_id = "m/resid_post.4/chat/topk/seed-0"
    write_json(tmp_path / "metrics.json", metrics(tmp_path))
    write_json(tmp_path / "twins.json", {"sae_id": sae_id, "corpora": comparison(interval=None, learnt="unresolved")})
    saes, corpora = {sae_id: tmp_path / "metrics.json"}, {sae_id: ["chat", "news"]}
    kinds, files = ["near_decoder"], {sae_id: tmp_path / "twins.json"}
    write_study_table("s", saes, corpora, None, tmp_path / "s.csv", files, kinds)
    table = read_csv(tmp_path / "s.csv")
    assert list(table.learnt) == ["yes", "yes"]
    assert list(table.twin_outcome_near_decoder) == ["noisy", "noisy"]
    row = table.iloc[0]
    assert (row.twin_near_decoder_kl, row.best_twin_kl, row.best_twin_value_kl) == (0.7, "near_decoder", 0.7)
    assert (row.over_twin_kl, row.over_twin_kl_n_documents, row.learnt_kl) == (0.1, 20, "unresolved")
    assert pd.isna(row.over_twin_kl_interval_low) and pd.isna(row.over_twin_kl_interval_high)


def test_without_twins_learnt_is_untested(table):
    assert set(table.learnt) == {"untested"}
    assert not [name for name in table if "twin" in name]


def test_a_comparison_of_another_sae_is_refused(tmp_path):
    sae_id = "m/resid_post.4/chat/topk/seed-0"
    write_json(tmp_path / "metrics.json", metrics(tmp_path))
    write_json(tmp_path / "twins.json", {"sae_id": "other", "corpora": comparison()})
    with pytest.raises(EvaluationError, match=r"twins\.json: is of SAE 'other', expected 'm/"):
        write_study_table(
            "s",
            {sae_id: tmp_path / "metrics.json"},
            {sae_id: ["chat"]},
            None,
            tmp_path / "s.csv",
            {sae_id: tmp_path / "twins.json"},
        )
