"""Rows that are judged away from home, and rows that provoke a regime."""

import copy

import pytest
import yaml

from atlas.config.load import load_config
from atlas.config.reference import FOLDER
from atlas.config.rows import expand_rows
from atlas.errors import ConfigError

RAW = yaml.safe_load((FOLDER / "config.yaml").read_text())
ROW = {"hook": "resid_post.10", "shift": "away"}


def configuration(shift: dict, row: dict = ROW, **sections) -> dict:
    raw = copy.deepcopy(RAW)
    changed = {"rows": [row], "seeds": [0], "published": None, "usefulness": []}
    raw["studies"] = {"s": raw["studies"]["llama_sweep"] | changed}
    raw["frameworks"], raw["finance"], raw["shifts"] = None, {}, {"away": shift}
    return raw | sections


def place(shift: dict, **sections):
    return expand_rows(load_config(configuration(shift, **sections)))["s"][0].judged


def test_a_shift_says_where_a_row_is_judged():
    found = place({"hook": "resid_post.19", "scale": 0.5, "corpora": {"chat": "chat-as-tuned"}})
    assert (found.model, found.hook, found.scale) == ("smollm2-135m", "resid_post.19", 0.5)
    assert found.roles == {"chat-as-tuned": "in_sample", "encyclopedia": "proxy", "news": "oos"}


def test_another_model_of_the_same_width_is_taken_at_the_same_hook():
    models = RAW["models"] | {"tuned": RAW["models"]["smollm2-135m"]}
    assert place({"model": "tuned"}, models=models).model == "tuned"
    assert place({"model": "tuned"}, models=models).hook == "resid_post.10"


def test_rows_of_one_sae_differ_by_their_shift():
    raw = configuration({"scale": 2.0})
    raw["studies"]["s"]["rows"] = [ROW, {"hook": "resid_post.10"}]
    rows = expand_rows(load_config(raw))["s"]
    assert rows[0].sae_id == rows[1].sae_id
    assert rows[0].judged_id == f"{rows[1].judged_id}/away"
    assert rows[1].judged.roles == rows[1].roles
    raw["studies"]["s"]["rows"] = [ROW, ROW]
    with pytest.raises(ConfigError, match=r"duplicate row '.*seed-0/away'"):
        load_config(raw)


@pytest.mark.parametrize(
    ("shift", "message"),
    [
        ({}, "changes nothing: give another model"),
        ({"scale": 1.0}, "changes nothing: give another model"),
        ({"scale": -1.0}, r"shifts\.away\.scale: -1\.0"),
        ({"hook": "resid_post.10"}, r"rows\[0\]\.shift: 'away' changes nothing for 'smollm2-135m' at 'resid_post\.10'"),
        ({"hook": "resid_post.11"}, r"shifts\.away\.hook: 'resid_post\.11' is not one of models"),
        ({"model": "gpt"}, r"shifts\.away\.model: 'gpt' is not one of"),
        ({"model": "all-minilm-l6-v2", "hook": "resid_post.4"}, r"\(d_model 576\) on .*\(d_model 384\)"),
        ({"corpora": {"chat": "blogs"}}, r"shifts\.away\.corpora\.chat: 'blogs' is not one of"),
        ({"corpora": {"finance": "chat-as-tuned"}}, r"'finance' is no evaluation corpus of"),
        ({"corpora": {"news": "encyclopedia"}}, "one corpus in the place of two"),
        ({"corpora": {"news": "chat", "chat": "news"}}, "is trained on or judged at home already"),
    ],
)
def test_a_shift_that_makes_no_sense_is_an_error(shift, message):
    with pytest.raises(ConfigError, match=message):
        load_config(configuration(shift))


def test_rows_of_regimes_need_a_cause():
    row = {"hook": "resid_post.10", "intended": "good"}
    with pytest.raises(ConfigError, match="intended and cause belong together"):
        load_config(configuration({"scale": 2.0}, row))
    with pytest.raises(ConfigError, match=r"rows\[0\]\.intended: 'splendid' is not one of"):
        load_config(configuration({"scale": 2.0}, row | {"intended": "splendid", "cause": "luck"}))
    assert expand_rows(load_config(configuration({"scale": 2.0}, row | {"cause": "none"})))["s"][0].intended == "good"


def test_other_mistakes_name_the_key():
    with pytest.raises(ConfigError, match=r"rows\[0\]\.shift: 'home' is not one of \['away'\]"):
        load_config(configuration({"scale": 2.0}, ROW | {"shift": "home"}))
    with pytest.raises(ConfigError, match=r"shifts\.home: that is the name of no shift"):
        load_config(configuration({}, shifts={"home": {"scale": 2.0}}))
    with pytest.raises(ConfigError, match=r"token_counts is \[100, 10\]: must ascend"):
        load_config(configuration({"scale": 2.0}, regimes={"token_counts": [100, 10]}))
    recipes = RAW["recipes"] | {"topk": RAW["recipes"]["topk"] | {"initial_copies": 201}}
    with pytest.raises(ConfigError, match=r"initial_copies is 201: at most half of n_latents \(400\)"):
        load_config(configuration({"scale": 2.0}, recipes=recipes))
