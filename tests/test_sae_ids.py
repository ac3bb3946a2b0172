"""Ids of SAEs are read in one place."""

import pytest

from atlas.sae_ids import STATED, SaeId, split_shift

TRAINED = "llama/resid_post.19/generic/topk/seed-3"
TRANSCODER = "llama/mlp_in.10-to-mlp_out.10/generic/topk/seed-0"
PUBLISHED = f"llama/resid_post.19/{STATED}generic/scope/seed-0"


@pytest.mark.parametrize("text", [TRAINED, TRANSCODER, PUBLISHED])
def test_an_id_is_given_back_as_it_was_read(text):
    assert str(SaeId.parse(text)) == text


def test_columns_and_names_for_readers():
    own, transcoder, published = map(SaeId.parse, (TRAINED, TRANSCODER, PUBLISHED))
    assert own.columns == {
        "model": "llama",
        "hook": "resid_post.19",
        "target_hook": None,
        "mix": "generic",
        "recipe": "topk",
        "seed": 3,
    }
    assert (transcoder.columns["hook"], transcoder.columns["target_hook"]) == ("mlp_in.10", "mlp_out.10")
    assert published.is_published and not own.is_published
    assert (published.columns["mix"], published.columns["seed"]) == (None, None)
    assert own.title == "llama · resid_post.19 · generic · topk · seed 3"
    assert published.title == "llama · resid_post.19 · published · scope"


def test_a_shift_stands_behind_the_id():
    assert split_shift(TRAINED) == (SaeId.parse(TRAINED), None)
    assert split_shift(f"{TRAINED}/earlier") == (SaeId.parse(TRAINED), "earlier")


@pytest.mark.parametrize(
    "text", ["", "llama/resid_post.19/generic/topk", f"{TRAINED}/x", TRAINED.replace("-3", "-"), TRAINED + "a"]
)
def test_another_text_is_refused_with_the_form(text):
    with pytest.raises(ValueError, match=r"expected <model>/<hook>/<mix>/<recipe>/seed-<n>"):
        SaeId.parse(text)


def test_a_wrong_hook_is_refused_with_its_grammar():
    with pytest.raises(ValueError, match="site"):
        SaeId.parse(TRAINED.replace("resid_post", "residual"))
