"""Which settings an architecture needs and takes, and what is said when they are wrong."""

import pytest
import yaml
from pydantic import ValidationError

from atlas.config.load import load_config
from atlas.config.recipe import Recipe
from atlas.config.reference import FOLDER
from atlas.config.rows import expand_rows
from atlas.training.guards import warnings_before
from atlas.training.schedule import lr_at

THRESHOLD = {"k": 4, "threshold_start_step": 10}
NEEDED = {
    "topk": {"k": 4},
    "batch_topk": THRESHOLD,
    "matryoshka_batch_topk": THRESHOLD | {"group_fractions": [0.25, 0.75]},
    "relu": {"l1_coefficient": 0.1},
    "gated": {"l1_coefficient": 0.1},
    "jumprelu": {"target_l0": 4.0},
}


def recipe(architecture, **settings):
    return Recipe(architecture=architecture, n_latents=64, steps=100, **(NEEDED[architecture] | settings))


@pytest.mark.parametrize("architecture", NEEDED)
def test_what_is_needed_is_enough_and_survives_being_written(architecture):
    settings = recipe(architecture)
    assert Recipe.model_validate_json(settings.model_dump_json()) == settings
    assert Recipe(**settings.model_dump()) == settings
    assert hash(settings) == hash(recipe(architecture))  # rows of studies are compared
    assert set(NEEDED[architecture]) <= set(settings.sparsity())


@pytest.mark.parametrize("architecture", NEEDED)
def test_what_is_needed_is_asked_for(architecture):
    key = next(iter(NEEDED[architecture]))
    with pytest.raises(ValidationError, match=f"architecture {architecture} needs {key}"):
        recipe(architecture, **{key: None})


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        ("relu", {"k": 4}, "architecture relu takes no k; it is for topk, batch_topk, matryoshka_batch_topk"),
        ("topk", {"l1_coefficient": 0.1}, "architecture topk takes no l1_coefficient; it is for relu, gated"),
        ("gated", {"target_l0": 3.0}, "architecture gated takes no target_l0; it is for jumprelu"),
        ("relu", {"bandwidth": 0.1}, "architecture relu takes no bandwidth; it is for jumprelu"),
        ("relu", {"l0_coefficient": 2.0}, "takes no l0_coefficient"),
        ("topk", {"threshold_start_step": 5}, "takes no threshold_start_step; it is for batch_topk, matryoshka"),
        ("topk", {"sparsity_warmup_steps": 5}, "takes no sparsity_warmup_steps; it is for relu, gated, jumprelu"),
        ("batch_topk", {"group_fractions": [0.5, 0.5]}, "takes no group_fractions"),
        ("matryoshka_batch_topk", {"group_fractions": [0.5, 0.4]}, r"group_fractions is \[0.5, 0.4\]: must sum to 1"),
        ("matryoshka_batch_topk", {"group_fractions": [1.0]}, "at least 2 items"),
        ("matryoshka_batch_topk", {"group_fractions": [0.01, 0.99]}, "a group of 64 latents is empty"),
        ("matryoshka_batch_topk", {"group_fractions": [1.5, -0.5]}, "greater than 0"),
        ("matryoshka_batch_topk", {"threshold_start_step": 100}, "threshold_start_step is 100: must be below steps"),
        ("topk", {"warmup_steps": 100}, r"warmup_steps is 100: must be below steps \(100\), .*for the default, 5"),
        ("topk", {"warmup_steps": 1000}, r"warmup_steps is 1000: must be below steps \(100\)"),
        ("relu", {"sparsity_warmup_steps": 100}, r"sparsity_warmup_steps is 100: must be below steps \(100\)"),
        ("topk", {"k": 64}, "k is 64: must be below n_latents, which is 64"),
        ("jumprelu", {"target_l0": 64.0}, "target_l0 is 64.0: must be below n_latents, which is 64"),
        ("topk", {"parity": "saelens"}, "'dictionary_learning' or 'sparsify'"),
        ("gated", {"parity": "sparsify"}, "parity is sparsify, which has no architecture gated; expected one of topk"),
    ],
)
def test_faults_are_named(architecture, settings, message):
    with pytest.raises(ValidationError, match=message):
        recipe(architecture, **settings)


def defaults(steps, batch_size):
    settings = Recipe(architecture="batch_topk", n_latents=64, k=4, steps=steps, batch_size=batch_size)
    return settings.warmup_steps, settings.threshold_start_step, settings.dead_feature_tokens


def test_what_is_left_out_follows_the_length_of_training():
    """Long trainings have dictionary_learning's numbers, and no training is too short to reach its learning rate."""
    assert defaults(150, 64) == (7, 75, 960)
    assert defaults(100_000, 2048) == (1000, 1000, 10_000_000)
    assert defaults(1, 1) == (0, 0, 1)


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 150, 999, 1000, 1001, 2000])
def test_a_recipe_of_any_length_reaches_its_learning_rate_and_revives(steps):
    settings = Recipe(architecture="batch_topk", n_latents=64, k=4, steps=steps, lr=0.5)
    assert max(lr_at(settings, step) for step in range(steps)) == 0.5
    assert settings.threshold_start_step < steps
    if steps > 1:
        assert warnings_before(settings, {}) == []


def test_a_row_with_other_steps_has_their_warm_up():
    """Copies of a recipe leave out the same keys."""
    raw = yaml.safe_load((FOLDER / "config.yaml").read_text())
    recipe = {"architecture": "topk", "n_latents": 400, "k": 32, "steps": 400, "batch_size": 1024}
    raw["recipes"]["short"] = recipe
    rows = [{"hook": "resid_post.4"}, {"hook": "resid_post.10", "override": {"steps": 1000}}]
    raw["studies"] = {"llama_sweep": raw["studies"]["llama_sweep"] | {"recipe": "short", "rows": rows, "seeds": [0]}}
    raw |= {"finance": {}, "frameworks": None}
    rows = expand_rows(load_config(raw))["llama_sweep"]
    assert [row.recipe.warmup_steps for row in rows] == [20, 50]
    assert [row.recipe.dead_feature_tokens for row in rows] == [40 * 1024, 100 * 1024]
