"""Rows that name an SAE that was trained elsewhere: what they are, and what is refused before anything runs."""

import copy

import pytest

from atlas.config.load import load_config, read_config
from atlas.config.rows import expand_rows, stated_mixes
from atlas.errors import ConfigError

SAE = {
    "source": {"kind": "hub", "id": "org/name", "licence": "MIT"},
    "folder": "layer_10",
    "format": "saelens",
    "model": "smollm2-135m",
    "hook": "resid_post.10",
    "n_latents": 16384,
}
ROW = {"sae": "theirs"}


@pytest.fixture(scope="module")
def whole() -> dict:
    return read_config("config/config.yaml").model_dump(mode="json", exclude_unset=True)


def config(whole: dict, row: dict | None = None, sae: dict | None = None, **study) -> dict:
    changed = copy.deepcopy(whole)
    changed["saes"] = {"theirs": SAE | (sae or {})}
    evaluation = {"in_sample": ["chat", "finance"], "oos": ["encyclopedia"]}
    changed["studies"]["judged"] = {"evaluation": evaluation, "rows": [row or ROW]} | study
    return changed


def refused(raw: dict) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(raw)
    return str(error.value)


def test_a_row_is_of_the_text_that_the_user_states(whole):
    (row,) = expand_rows(load_config(config(whole)))["judged"]
    assert row.sae_id == "smollm2-135m/resid_post.10/published-chat.finance/theirs/seed-0"
    assert row.recipe is None and row.n_latents == 16384 and row.roles["encyclopedia"] == "oos"
    mixes = stated_mixes([row])
    assert mixes[row.mix].corpora == ("chat", "finance")


def test_keys_of_a_study_are_not_those_of_a_published_sae(whole):
    """A study's recipe is for its other rows; a shift judges a published SAE elsewhere as any."""
    row = ROW | {"shift": "at-layer-19"}
    rows = expand_rows(load_config(config(whole, row, model="all-minilm-l6-v2", recipe="topk", mix="chat")))["judged"]
    assert [each.model for each in rows] == ["smollm2-135m"] and rows[0].judged.hook == "resid_post.19"


def test_one_needs_no_mix_and_no_recipe(whole):
    raw = config(whole)
    for section in ("mixes", "recipes", "frameworks", "finance", "shifts"):
        raw.pop(section)
    raw["studies"] = {"judged": raw["studies"]["judged"]}
    assert list(expand_rows(load_config(raw))) == ["judged"]


@pytest.mark.parametrize(
    ("row", "sae", "said"),
    [
        ({"sae": "nope"}, {}, "studies.judged.rows[0].sae: 'nope' is not one of saes, which has ['theirs']"),
        (ROW | {"recipe": "topk"}, {}, "which was not trained here: must have no recipe; model and hook are keys of"),
        (ROW | {"hook": "resid_post.4", "seeds": [0]}, {}, "must have no hook, seeds"),
        ({"cause": None}, {}, "give 'hook' for an SAE that is trained here, or 'sae' for one of section saes"),
        (ROW, {"hook": "resid_post.11"}, "saes.theirs.hook: 'resid_post.11' is not one of models."),
        (ROW, {"hook": "resid_post.30"}, "saes.theirs.hook: 'resid_post.30' is beyond 'smollm2-135m'"),
        (ROW, {"hook": "layer 10"}, "saes.theirs.hook: hook point 'layer 10' is not '<site>.<layer>'"),
        (ROW, {"model": "nope"}, "saes.theirs.model: 'nope' is not one of"),
        (
            ROW,
            {"target_hook": "resid_post.4"},
            "saes.theirs.target_hook: target hook 'resid_post.4' is computed before",
        ),
        (ROW, {"n_latents": 1}, "saes.theirs.n_latents: 1"),
        (ROW, {"folder": "../elsewhere"}, "folder is '../elsewhere': must be a relative path"),
        (ROW, {"states": {"hook": "resid_post.4"}}, "states has hook: give it beside `states`, as a key of its own"),
        (ROW, {"scale": 2}, "saes.theirs.scale: 2 unknown key"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(whole, row, sae, said):
    assert said in refused(config(whole, row, sae))


def test_text_without_training_documents_cannot_be_in_sample(whole):
    raw = config(whole, evaluation={"in_sample": "news", "oos": ["chat"]})
    assert "corpora.news.eval_fraction is 1; 'theirs' needs held-out documents" in refused(raw)


def test_names_of_mixes_are_not_taken_for_published_ones(whole):
    raw = config(whole)
    raw["mixes"]["published-chat"] = raw["mixes"]["chat"]
    assert "mixes.published-chat: names with 'published-' are of `saes`; choose another" in refused(raw)


def test_a_published_sae_is_no_row_of_a_study_of_finance(whole):
    raw = config(whole)
    del raw["studies"]["judged"]
    raw["studies"]["finance_mix"]["rows"].append(ROW)
    assert "'theirs' is a published SAE, and nobody knows whether it saw financial text" in refused(raw)
