"""Section `frameworks`: what is expanded, and what is refused with its key and value."""

import copy

import pytest
import yaml

from atlas.config.framework_rows import expand_frameworks
from atlas.config.load import load_config
from atlas.config.reference import FOLDER
from atlas.errors import ConfigError

RAW = yaml.safe_load((FOLDER / "config.yaml").read_text())


def configured(path: str, value) -> dict:
    """The default with one value of its section `frameworks` replaced, added, or (value ...) removed."""
    raw = copy.deepcopy(RAW)
    *parents, last = path.split("/")
    place = raw["frameworks"]
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return raw


def test_default_has_a_run_per_recipe_contender_and_seed():
    runs = expand_frameworks(load_config(configured("seeds", [0, 3])))
    assert len({run.run_id for run in runs}) == len(runs) == 2 * (5 + 4)
    assert {run.seed for run in runs} == {0, 3}
    assert {(run.model, run.hook, run.mix, run.corpus) for run in runs} == {
        ("smollm2-135m", "resid_post.10", "chat", "chat")
    }


def test_a_framework_has_no_run_of_what_it_does_not_train():
    runs = expand_frameworks(load_config(RAW))
    assert [run.recipe_name for run in runs if run.framework == "sparsify"] == ["topk"]


def test_no_section_no_runs():
    assert expand_frameworks(load_config(RAW | {"frameworks": None})) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("study", "sweep", r"frameworks\.study: 'sweep' is not one of \[.*'llama_sweep'"),
        ("hook", "resid_post.11", r"frameworks\.hook: 'resid_post\.11' is at no SAE of study 'llama_sweep'; it has re"),
        ("recipes/topk/decay_start", None, r"recipes\.topk has decay_start null; expected warmup_steps \+ 1, .* is 31"),
        ("recipes/topk/parity", "sparsify", r"recipes\.topk has parity 'sparsify' .*; expected null and true"),
        ("recipes/topk/normalise_activations", False, r"recipes\.topk .* normalise_activations false; expected null"),
        ("recipes/topk/k", None, r"frameworks\.recipes\.topk: architecture topk needs k"),
        ("contenders/atlas", ..., r"contenders has \['atlas-float32', .*\]: must have 'atlas'"),
        ("contenders/sparsify/options", {"autocast": True}, r"'autocast' is no option of sparsify, which has: none"),
        ("contenders/mine", {"framework": "openai"}, r"contenders\.mine\.framework: 'openai' is not one of 'atlas'"),
    ],
)
def test_fault_names_key_value_and_expectation(path, value, message):
    with pytest.raises(ConfigError, match=message):
        load_config(configured(path, value))


def test_architecture_without_peers_is_refused():
    relu = {"architecture": "relu", "n_latents": 64, "l1_coefficient": 0.1, "steps": 10, "warmup_steps": 2}
    with pytest.raises(ConfigError, match=r"recipes\.relu has architecture 'relu'; expected one of topk, batch_topk"):
        load_config(configured("recipes/relu", relu | {"decay_start": 3}))


def test_study_cannot_take_the_name_of_the_table():
    raw = copy.deepcopy(RAW)
    raw["studies"]["frameworks"] = raw["studies"]["llama_sweep"]
    with pytest.raises(ConfigError, match=r"results/frameworks\.csv is the table of section 'frameworks'"):
        load_config(raw)
