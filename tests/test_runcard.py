"""A card is complete or an error; a public card says what it withholds."""

import copy

import numpy as np
import pytest
import yaml
from training.planted import card_fields

from atlas.errors import TrainingError
from atlas.runcard import NULLABLE, REQUIRED, missing_fields, public_card, read_run_card, write_run_card


def complete_card():
    own = {section: dict.fromkeys(keys, 7) or 7 for section, keys in REQUIRED.items()}
    own["sae"] |= {"architecture": "topk", "n_latents": 4321, "k": 77, "l1_coefficient": None}
    own["warnings"] = ["sparsity_constraint_broken: L0 is 90, K is 77"]
    own["outcomes"] = {"in_sample": {"explained_variance": 0.75}}
    return own | card_fields() | {"mix": {"phases": [{"until": 1.0, "weights": {"planted": 0.625}}]}}


def test_round_trip_in_order(tmp_path):
    card = complete_card()
    write_run_card(tmp_path / "run_card.yaml", card | {"taxonomy": "good"})
    read = read_run_card(tmp_path / "run_card.yaml")
    assert read == card | {"taxonomy": "good"}
    assert list(read) == [*REQUIRED, "taxonomy"]


def test_a_card_shows_no_secret_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_HUB_TOKEN", "hf_0123456789")
    warning = "asked the hub with hf_0123456789"
    write_run_card(tmp_path / "run_card.yaml", complete_card() | {"warnings": [warning]})
    assert read_run_card(tmp_path / "run_card.yaml")["warnings"] == ["asked the hub with <MY_HUB_TOKEN>"]


@pytest.mark.parametrize("name", [f"{s}.{k}" if k else s for s, ks in REQUIRED.items() for k in (None, *ks)])
def test_every_missing_field_is_named(tmp_path, name):
    section, _, key = name.partition(".")
    card = copy.deepcopy(complete_card())
    if key:
        del card[section][key]
    else:
        del card[section]
    with pytest.raises(TrainingError, match=rf"run_card.yaml: the run card lacks {name};"):
        write_run_card(tmp_path / "run_card.yaml", card)
    assert not (tmp_path / "run_card.yaml").exists()


def test_null_says_nothing_except_where_a_setting_does_not_apply():
    card = copy.deepcopy(complete_card())
    for section, keys in REQUIRED.items():
        for key in keys:
            card[section][key] = None
    missing = missing_fields(card)
    assert set(missing) == {f"{s}.{k}" for s, ks in REQUIRED.items() for k in ks if (s, k) not in NULLABLE}


def test_every_corpus_states_its_licence():
    card = complete_card()
    del card["corpora"]["planted"]["licence"]
    assert missing_fields(card) == ["corpora.planted.licence"]


def test_values_that_are_no_yaml_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="plain values only"):
        write_run_card(tmp_path / "run_card.yaml", complete_card() | {"seed": np.float64(3)})


def test_a_public_card_withholds_the_recipe_and_says_so():
    public = public_card(complete_card() | {"taxonomy": "good", "something_new": {"secret": 1}})
    text = yaml.safe_dump(public)
    for secret in ("4321", "77", "0.625", "secret: 1"):
        assert secret not in text
    assert public["sae"] == {"architecture": "topk", "d_model": 7, "d_target": 7}
    assert public["outcomes"] == {"in_sample": {"explained_variance": 0.75}}
    assert (public["taxonomy"], public["warnings"]) == ("good", ["sparsity_constraint_broken"])
    assert {"optimisation", "mix", "drawn_shares", "tokens", "sae.n_latents", "sae.k", "something_new"} <= set(
        public["withheld"]
    )
