"""Rows with a planted truth are checked before anything is computed."""

import copy

import pytest

from atlas.config.load import load_config
from atlas.errors import ConfigError

HARVEST = {"context_length": 8, "train_tokens": 8192, "eval_tokens": 8}
SOURCE = {"kind": "planted", "n_features": 40, "frequency": {"law": "constant", "highest": 0.1}}
MODEL = {"objective": "none", "n_layers": 1, "d_model": 8, "hooks": ["resid_post.0"], "harvest": HARVEST}
CONFIG = {
    "models": {
        "planted": {"source": SOURCE, **MODEL},
        "real": {"source": {"kind": "path", "path": "m"}, **MODEL, "objective": "causal_lm"},
    },
    "corpora": {
        "one": {"source": {"kind": "planted_sample", "seed": 1}},
        "two": {"source": {"kind": "planted_sample", "seed": 2}},
        "text": {"source": {"kind": "path", "path": "t"}},
    },
    "mixes": {"one": {"phases": [{"until": 1.0, "weights": {"one": 1.0}}]}},
    "recipes": {"topk": {"architecture": "topk", "n_latents": 40, "k": 4, "steps": 8, "batch_size": 8}},
    "studies": {
        "s": {
            "model": "planted",
            "mix": "one",
            "recipe": "topk",
            "evaluation": {"in_sample": "one", "oos": ["two"]},
            "rows": [{"hook": "resid_post.0"}],
        }
    },
}


def changed(**places) -> dict:
    raw = copy.deepcopy(CONFIG)
    for place, value in places.items():
        *path, last = place.split("__")
        inner = raw
        for key in path:
            inner = inner[int(key)] if isinstance(inner, list) else inner[key]
        inner[last] = value
    return raw


def test_a_planted_study_is_sound():
    load_config(CONFIG)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (
            {"recipes__topk__n_latents": 30},
            r"'planted' has 40 features to be found, but its recipe has 30 latents and can hold 75% of them at most; "
            r"expected n_latents of at least 40, or scored_features of models\.planted\.source at most 30",
        ),
        ({"corpora__two__source": {"kind": "planted_sample", "seed": 1}}, "seed is 1, as that of 'one': .* trains on"),
        (
            {"studies__s__evaluation": {"in_sample": "one", "oos": ["text"]}},
            "model 'planted' is planted, but corpus 'text' is text; expected a planted_sample",
        ),
        (
            {"studies__s__usefulness": ["labels"]},
            r"studies\.s\.usefulness is \['labels'\], but model 'planted' is planted: .* leave out the key",
        ),
        ({"studies__s__model": "real"}, "model 'real' is a language model, but corpus 'one' is a planted_sample"),
    ],
)
def test_what_cannot_be_is_said_first(places, said):
    with pytest.raises(ConfigError, match=said):
        load_config(changed(**places))


def test_fewer_latents_are_allowed_where_fewer_features_are_looked_for():
    load_config(changed(recipes__topk__n_latents=30, models__planted__source__scored_features=30))
