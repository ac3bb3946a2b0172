"""The table of labels of a study, from planted summaries."""

import json

import pandas as pd
import pytest

from atlas.errors import EvaluationError
from atlas.studies.autointerp import SaeFiles, write_autointerp_table

IDS = ["m/resid_post.4/chat/topk/seed-0", "m/resid_post.4/finance/topk/seed-0"]


def files(folder, sae_id: str, corpus: str) -> SaeFiles:
    """Labels that score .6; FVU .1 on chat and .2 on finance."""
    folder.mkdir()
    row = {
        "negatives": "random",
        "score": {"value": 0.6, "interval": [0.5, 0.7]},
        "beats": ["blind"],
        "does_not_beat": ["shuffled labels"],
        "unscored": {},
    }
    rows = [row | {"dictionary": kind} for kind in ("sae", "random")]
    (folder / "autointerp.json").write_text(json.dumps({"sae_id": sae_id, "rows": rows}))
    measured = {"value": 0.3, "null_mean": 0.1}
    metrics = {
        "sae_id": sae_id,
        "redundancy": {"absorption_guide": measured, "mean_max_cosine": measured},
        "corpora": {"chat": {"atlas": {"fvu_regular": 0.1}}, "finance": {"atlas": {"fvu_regular": 0.2}}},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    pd.DataFrame({"outcome": ["good", "noisy", "good", "good"]}).to_parquet(folder / "latents.parquet")
    return SaeFiles(folder / "autointerp.json", folder / "latents.parquet", folder / "metrics.json", corpus)


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


def test_a_random_dictionary_has_the_redundancy_of_the_null_and_no_fvu(tmp_path):
    write_autointerp_table("s", {IDS[0]: files(tmp_path / "a", IDS[0], "chat")}, tmp_path / "s.csv")
    table = pd.read_csv(tmp_path / "s.csv").set_index("dictionary")
    assert table.absorption_guide.to_dict() == {"sae": 0.3, "random": 0.1}
    assert table.loc["random", ["fvu", "outcome_shares"]].isna().all()


def test_files_of_another_sae_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"autointerp\.json: is of SAE 'm/.*chat.*, expected 'm/.*finance"):
        write_autointerp_table("s", {IDS[1]: files(tmp_path / "a", IDS[0], "chat")}, tmp_path / "s.csv")
