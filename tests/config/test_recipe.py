"""Which settings an architecture needs and takes, and what is said when they are wrong."""

import pytest
from pydantic import ValidationError

from atlas.config.recipe import Recipe

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
        ("topk", {"k": 64}, "k is 64: must be below n_latents, which is 64"),
        ("jumprelu", {"target_l0": 64.0}, "target_l0 is 64.0: must be below n_latents, which is 64"),
        ("topk", {"parity": "saelens"}, "'dictionary_learning' or 'sparsify'"),
        ("gated", {"parity": "sparsify"}, "parity is sparsify, which has no architecture gated; expected one of topk"),
    ],
)
def test_faults_are_named(architecture, settings, message):
    with pytest.raises(ValidationError, match=message):
        recipe(architecture, **settings)
