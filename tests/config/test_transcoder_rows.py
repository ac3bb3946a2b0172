"""Study rows with a target hook: transcoders."""

import copy

import pytest
import yaml

from atlas.config.load import load_config
from atlas.config.recipe import TRANSCODERS
from atlas.config.reference import FOLDER
from atlas.config.rows import expand_rows
from atlas.errors import ConfigError
from atlas.hook_points import HookPoint, SaeHooks
from atlas.training.architectures import ARCHITECTURES

RAW = yaml.safe_load((FOLDER / "config.yaml").read_text())
ROW = {"hook": "mlp_in.10", "target_hook": "mlp_out.10"}


def configuration(row: dict, **recipe) -> dict:
    """The default with the hooks of two MLPs stored, and one study of one row."""
    raw = copy.deepcopy(RAW)
    raw["models"]["smollm2-135m"]["hooks"] += ["resid_pre.11", "mlp_in.10", "mlp_out.10", "mlp_out.9"]
    raw["studies"] = {"mlp": raw["studies"]["llama_sweep"] | {"rows": [row], "seeds": [0], "published": None}}
    raw["frameworks"], raw["finance"] = None, {}  # they take studies of the default
    raw["recipes"]["topk"] |= recipe
    return raw


def test_row_names_both_hooks():
    row = expand_rows(load_config(configuration(ROW)))["mlp"][0]
    assert (row.hook, row.target_hook) == ("mlp_in.10", "mlp_out.10")
    assert row.sae_id == "smollm2-135m/mlp_in.10-to-mlp_out.10/chat/topk/seed-0"
    plain = expand_rows(load_config(configuration({"hook": "mlp_in.10"})))["mlp"][0]
    assert plain.target_hook is None
    assert plain.sae_id == "smollm2-135m/mlp_in.10/chat/topk/seed-0"


def test_sae_and_transcoder_of_one_hook_stand_in_one_study():
    raw = configuration(ROW)
    raw["studies"]["mlp"]["rows"].append({"hook": "mlp_in.10"})
    assert len({row.sae_id for row in expand_rows(load_config(raw))["mlp"]}) == 2


@pytest.mark.parametrize(
    ("row", "recipe", "message"),
    [
        ({"hook": "mlp_in.10", "target_hook": "mlp_out.12"}, {}, r"target_hook: 'mlp_out\.12' is not one of models\."),
        ({"hook": "mlp_in.10", "target_hook": "mlp_out.30"}, {}, r"target_hook: 'mlp_out\.30' is beyond"),
        ({"hook": "mlp_in.10", "target_hook": "mlp.10"}, {}, r"target_hook: hook point 'mlp\.10' is not"),
        ({"hook": "mlp_in.12", "target_hook": "mlp_out.10"}, {}, r"\.hook: 'mlp_in\.12' is not one of models"),
        ({"hook": "mlp_in.10", "target_hook": "mlp_out.9"}, {}, r"'mlp_out\.9' is computed before 'mlp_in\.10'"),
        ({"hook": "mlp_out.10", "target_hook": "mlp_in.10"}, {}, r"'mlp_in\.10' is computed before"),
        ({"hook": "mlp_in.10", "target_hook": "mlp_in.10"}, {}, r"is the same tensor as 'mlp_in\.10'.*none for an SAE"),
        ({"hook": "resid_post.10", "target_hook": "resid_pre.11"}, {}, r"is the same tensor as 'resid_post\.10'"),
        (
            ROW,
            {"architecture": "relu", "k": None, "l1_coefficient": 0.1},
            r"architecture 'relu' is not made for; expected a recipe with one of topk, batch_topk",
        ),
        (ROW, {"parity": "dictionary_learning"}, r"parity is for SAEs, it reproduces no transcoder"),
    ],
)
def test_fault_names_row_key_value_and_expectation(row, recipe, message):
    with pytest.raises(ConfigError, match=rf"studies\.mlp\.rows\[0\]\.(target_)?hook.*{message}|{message}"):
        load_config(configuration(row, **recipe))


@pytest.mark.parametrize("text", ["resid_post.19", "mlp_in.10-to-mlp_out.10", "attn_out.3-to-resid_post.3"])
def test_hooks_round_trip(text):
    hooks = SaeHooks.parse(text)
    assert str(hooks) == text
    assert SaeHooks.of(hooks.source, hooks.target_hook) == hooks
    assert hooks.is_transcoder == ("-to-" in text)


@pytest.mark.parametrize("text", ["mlp_in.10-to-", "-to-mlp_out.10", "mlp_in.1-to-mlp_out.1-to-resid_post.1", "mlp"])
def test_hooks_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="is not '<site>"):
        SaeHooks.parse(text)


def test_depth_follows_the_forward_pass():
    order = ["resid_pre.3", "attn_out.3", "mlp_in.3", "mlp_out.3", "resid_post.3", "attn_out.4"]
    depths = [HookPoint.parse(text).depth for text in order]
    assert depths == sorted(set(depths))
    assert HookPoint.parse("resid_post.3").depth == HookPoint.parse("resid_pre.4").depth


def test_configuration_and_registry_agree():
    assert set(TRANSCODERS) == {name for name, entry in ARCHITECTURES.items() if entry.saelens_transcoder}
