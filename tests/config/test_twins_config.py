"""Studies with twins: which SAEs they get, and what can have none."""

import copy

import pytest
import yaml

from atlas.config.load import load_config
from atlas.config.recipe import TWINS, Recipe
from atlas.config.reference import FOLDER
from atlas.config.rows import expand_rows
from atlas.config.twins import expand_twins
from atlas.errors import ConfigError

RAW = yaml.safe_load((FOLDER / "config.yaml").read_text())


def configuration(row: dict | None = None, twins=TWINS, usefulness=(), **recipe) -> dict:
    """The default with one study of one row, which has twins."""
    raw = copy.deepcopy(RAW)
    raw["models"]["smollm2-135m"]["hooks"] += ["mlp_in.10", "mlp_out.10"]
    study = raw["studies"]["llama_sweep"] | {"rows": [row or {"hook": "resid_post.10"}], "twins": list(twins)}
    study["usefulness"] = list(usefulness)
    raw["studies"] = {"with_twins": study}
    raw["frameworks"], raw["finance"] = None, {}  # they take studies of the default
    raw["recipes"]["topk"] |= recipe
    return raw


def test_every_row_and_seed_has_each_twin_and_they_are_no_rows():
    config = load_config(configuration())
    found = expand_twins(config)["with_twins"]
    rows = {row.sae_id: row for row in expand_rows(config)["with_twins"]}
    assert list(found) == list(rows) and len(rows) == 2
    for sae_id, twins in found.items():
        assert tuple(twins) == TWINS
        for kind, twin in twins.items():
            own = rows[sae_id]
            assert twin.sae_id == sae_id.replace("/topk/", f"/topk.{kind}/")
            assert twin.recipe == own.recipe.model_copy(update={"twin": kind})
            assert (twin.seed, twin.roles, twin.mix) == (own.seed, own.roles, own.mix)


def test_overrides_hold_for_twins_too():
    raw = configuration({"hook": "resid_post.10", "override": {"n_latents": 1200}})
    (twins, _) = expand_twins(load_config(raw))["with_twins"].values()
    assert {twin.recipe.n_latents for twin in twins.values()} == {1200}


def test_the_default_study_is_the_sweep():
    config = load_config(RAW)
    studies = expand_rows(config)
    assert [row.sae_id for row in studies["twins"]] == [row.sae_id for row in studies["llama_sweep"]]
    assert set(expand_twins(config)) == {"twins"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            configuration({"hook": "mlp_in.10", "target_hook": "mlp_out.10"}),
            r"studies\.with_twins\.twins: 'smollm2-135m/mlp_in\.10-to-mlp_out\.10/chat/topk/seed-0' is a transcoder",
        ),
        (configuration({"hook": "resid_post.10", "shift": "at-layer-19"}), r"is judged away from home"),
        (configuration(twin="near_decoder"), r"is a twin already \(twin: near_decoder\)"),
        (configuration(parity="dictionary_learning"), r"has no twin frozen_decoder: .*parity with dictionary_learning"),
        (configuration(twins=["near_decoder", "near_decoder"]), r"twins is .*: name each once"),
        (configuration(usefulness=["labels", "labels"]), r"usefulness is .*: name each once"),
        (
            configuration({"hook": "resid_post.10", "shift": "at-layer-19"}, twins=(), usefulness=["labels"]),
            r"studies\.with_twins\.usefulness is \['labels'\], but every row has a shift",
        ),
        (
            configuration(twins=["half_frozen"]),
            r"studies\.with_twins\.twins\[0\]: 'half_frozen' is not one of 'frozen_decoder'",
        ),
    ],
)
def test_what_can_have_no_twins_is_refused(raw, message):
    with pytest.raises(ConfigError, match=message):
        load_config(raw)


def test_an_sae_of_a_twins_name_must_be_that_twin():
    raw = configuration()
    raw["recipes"]["topk.near_decoder"] = raw["recipes"]["topk"]
    raw["studies"]["other"] = raw["studies"]["with_twins"] | {"recipe": "topk.near_decoder", "twins": []}
    with pytest.raises(ConfigError, match=r"near_decoder is to be .*, which study 'other' trains otherwise; rename"):
        load_config(raw)


def test_dictionaries_of_other_frameworks_have_no_twins():
    raw = copy.deepcopy(RAW)
    raw["frameworks"]["recipes"]["topk"] |= {"twin": "frozen_encoder"}
    with pytest.raises(ConfigError, match=r"frameworks\.recipes\.topk\.twin: 'frozen_encoder'.*trained here alone"):
        load_config(raw)


def test_the_cosine_is_of_near_decoders_alone():
    fields = {"architecture": "topk", "n_latents": 8, "k": 2, "steps": 4}
    assert Recipe(**fields, twin="near_decoder").twin_cosine == 0.8
    with pytest.raises(ValueError, match=r"twin_cosine is 0\.9: only twin near_decoder takes it"):
        Recipe(**fields, twin="frozen_decoder", twin_cosine=0.9)
