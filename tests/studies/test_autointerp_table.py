"""The table of labels of a study, from planted summaries."""

import json

import pandas as pd
import pytest

from atlas.autointerp.study_table import LabelFiles, beside_random_model, write_autointerp_table
from atlas.errors import EvaluationError

IDS = ["m/resid_post.4/chat/topk/seed-0", "m/resid_post.4/finance/topk/seed-0"]


def files(folder, sae_id: str, corpus: str) -> LabelFiles:
    """Labels that score .6; FVU .1 on chat and .2 on finance."""
    folder.mkdir()
    row = {
        "negatives": "random",
        "explainer": "lexical",
        "scorer": "words",
        "score": {"value": 0.6, "interval": [0.5, 0.7]},
        "beats": ["blind"],
        "does_not_beat": ["shuffled labels"],
        "unscored": {},
    }
    rows = [row | {"dictionary": kind} for kind in ("sae", "random")]
    planted = {"explainer": "lexical", "scorer": "words", "class": "rare_word", "dense": True}
    ends = {
        "ceilings": [planted | {"score": {"value": 0.97, "interval": [0.95, 0.99]}}],
        "by_token": {"sae": {"share_told": 0.7}, "random": {"share_told": 0.2}},
    }
    (folder / "autointerp.json").write_text(json.dumps({"sae_id": sae_id, "rows": rows} | ends))
    measured = {"value": 0.3, "null_mean": 0.1}
    metrics = {
        "sae_id": sae_id,
        "redundancy": {"absorption_guide": measured, "mean_max_cosine": measured},
        "corpora": {"chat": {"atlas": {"fvu_regular": 0.1}}, "finance": {"atlas": {"fvu_regular": 0.2}}},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    latents = {"outcome": ["good", "noisy", "good", "good"], "told_by": ["token", None, "words", "token"]}
    pd.DataFrame(latents).to_parquet(folder / "latents.parquet")
    shares = {
        "sae": {"n": 4, "share": 0.75, "interval": [0.2, 0.99]},
        "random": {"n": 4, "share": 0, "interval": [0, 0.6]},
    }
    planted = {"all": {"n": 90, "share": 0.8, "interval": [0.7, 0.9]}}
    told = {"sae_id": sae_id, "limits": {}, **shares, "planted": planted}
    (folder / "told.json").write_text(json.dumps(told))
    return LabelFiles(
        *(folder / name for name in ("autointerp.json", "latents.parquet", "told.json", "metrics.json")), corpus
    )


def test_every_sae_is_held_against_text_of_its_own_training(tmp_path):
    saes = {IDS[0]: files(tmp_path / "a", IDS[0], "chat"), IDS[1]: files(tmp_path / "b", IDS[1], "finance")}
    write_autointerp_table("s", saes, tmp_path / "s.csv")
    table = pd.read_csv(tmp_path / "s.csv")
    ours = table[table.dictionary == "sae"]
    assert ours.mix.tolist() == ["chat", "finance"]
    assert ours.fvu.tolist() == [0.1, 0.2]
    assert ours[["score", "score_interval_low", "beats", "does_not_beat"]].iloc[0].tolist() == [
        0.6,
        0.5,
        "blind",
        "shuffled labels",
    ]
    assert json.loads(ours.outcome_shares.iloc[0]) == {"good": 0.75, "noisy": 0.25}
    assert json.loads(ours.told_by_shares.iloc[0]) == {"token": 0.5, "words": 0.25, "nothing": 0.25}
    assert table.told_by_token_share.tolist() == [0.7, 0.2] * 2
    assert table.told_share.tolist() == [0.75, 0.0] * 2
    assert table.told_latents.tolist() == [4] * 4
    assert table[["planted_told_interval_low", "planted_told_share"]].iloc[1].tolist() == [0.7, 0.8]
    ceiling = [f"planted_rare_word_dense{end}" for end in ("", "_interval_low", "_interval_high")]
    assert ours[ceiling].iloc[0].tolist() == [0.97, 0.95, 0.99]
    assert ours.planted_rare_word.isna().all()


def test_a_random_dictionary_has_the_redundancy_of_the_null_and_no_fvu(tmp_path):
    write_autointerp_table("s", {IDS[0]: files(tmp_path / "a", IDS[0], "chat")}, tmp_path / "s.csv")
    table = pd.read_csv(tmp_path / "s.csv").set_index("dictionary")
    assert table.absorption_guide.to_dict() == {"sae": 0.3, "random": 0.1}
    assert table.loc["random", ["fvu", "outcome_shares"]].isna().all()


def test_files_of_another_sae_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"autointerp\.json: is of SAE 'm/.*chat.*, expected 'm/.*finance"):
        write_autointerp_table("s", {IDS[1]: files(tmp_path / "a", IDS[0], "chat")}, tmp_path / "s.csv")


def scored(model: str, score: float, low: float, high: float, **more) -> dict:
    place = {"hook": "resid_post.4", "target_hook": None, "mix": "chat", "recipe": "topk", "seed": 0}
    asked = {"dictionary": "sae", "explainer": "lexical", "scorer": "embedding", "negatives": "random"}
    measured = {"score": score, "score_interval_low": low, "score_interval_high": high}
    kept = {"random_weights": None, "beats": "blind", "does_not_beat": "", "verdict": "beats its controls"}
    return place | asked | measured | kept | {"model": model} | more


def test_a_model_with_random_weights_is_a_control_of_the_trained_one():
    """The difference .1 with arms .03 and .04 has an interval of ± .05 by MOVER."""
    null = scored("noise", 0.5, 0.46, 0.54, random_weights="seed 0")
    table = beside_random_model(
        pd.DataFrame(
            [
                scored("m", 0.6, 0.57, 0.63),
                scored("m", 0.54, 0.51, 0.57, negatives="hard"),
                null,
                null | {"negatives": "hard"},
                scored("m", 0.9, 0.8, 1.0, dictionary="random"),
                scored("m", 0.9, 0.8, 1.0, hook="resid_post.5"),
            ]
        )
    )
    first, second, *others = table.to_dict("records")
    assert (first["random_model"], first["random_model_score"]) == ("noise", 0.5)
    assert first["over_random_model"] == pytest.approx(0.1)
    assert first["over_random_model_interval_low"] == pytest.approx(0.05)
    assert (first["beats"], first["does_not_beat"]) == ("blind, random model", "")
    assert (second["beats"], second["does_not_beat"]) == ("blind", "random model")
    assert [row["verdict"] for row in (first, second)] == ["beats its controls", "does not beat random model"]
    assert len(others) == 4
    for row in others:
        assert pd.isna(row["over_random_model"]) and pd.isna(row["random_model"]) and row["does_not_beat"] == ""


def test_a_study_without_such_a_model_is_as_before():
    rows = pd.DataFrame([scored("m", 0.6, 0.57, 0.63)])
    assert beside_random_model(rows).equals(rows)
