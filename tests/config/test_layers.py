"""Files over files: key by key as Snakemake merges them, and a mapping of another kind as a whole."""

import copy
import json

from hypothesis import given
from hypothesis import strategies as st
from snakemake.utils import update_config

from atlas.config.layers import DISCRIMINATORS, merge, replace_whole
from atlas.config.load import read_config
from atlas.config.reference import FOLDER
from atlas.config.rows import expand_rows

PACKAGE = {"kind": "package", "package": "p", "version": "1", "more": {"a": 1}}
TREES = st.recursive(
    st.integers(0, 2) | st.none(),
    lambda below: st.dictionaries(st.sampled_from(["a", "b", "kind"]), below | st.sampled_from(["x", "y"]), max_size=3),
    max_leaves=8,
)
LAYERS = st.lists(st.dictionaries(st.sampled_from(["a", "b"]), TREES, max_size=2), min_size=1, max_size=3)


def laid(*layers):
    return replace_whole(merge(layers), layers)


@given(LAYERS)
def test_layers_merge_as_snakemake_merges_them(layers):
    theirs = {}
    for layer in copy.deepcopy(layers):
        update_config(theirs, layer)
    assert merge(layers) == theirs


@given(LAYERS)
def test_nothing_goes_without_a_note(layers):
    merged = merge(layers)
    whole, notes = replace_whole(merged, layers)
    assert (whole == merged) or notes
    if not any(len({json.dumps(value) for value in kinds}) > 1 for kinds in kinds_by_place(layers).values()):
        assert whole == merged


def kinds_by_place(layers):
    """Every kind that a layer names at a place."""
    found = {}

    def walk(node, place):
        if isinstance(node, dict):
            if isinstance(node.get("kind"), str):
                found.setdefault(place, []).append(node["kind"])
            for key, value in node.items():
                walk(value, (*place, key))

    for layer in layers:
        walk(layer, ())
    return found


def test_a_source_of_another_kind_replaces_the_whole_source():
    base = {"models": {"m": {"source": PACKAGE, "n_layers": 2}}}
    upper = {"models": {"m": {"source": {"kind": "path", "path": "here"}}}}
    whole, notes = laid(base, upper)
    assert whole == {"models": {"m": {"source": {"kind": "path", "path": "here"}, "n_layers": 2}}}
    (note,) = notes
    assert note.startswith("models.m.source: kind is 'path' instead of 'package', hence replaced as a whole")
    assert note.endswith("keys no longer there: package, version, more")


def test_the_same_kind_is_merged_key_by_key():
    base = {"recipes": {"r": {"architecture": "topk", "k": 1, "lr": 2}}}
    whole, notes = laid(base, {"recipes": {"r": {"architecture": "topk", "k": 3}}}, {"recipes": {"r": {"lr": 5}}})
    assert whole == {"recipes": {"r": {"architecture": "topk", "k": 3, "lr": 5}}}
    assert notes == []


def test_the_last_change_of_kind_counts():
    layers = [{"r": {"architecture": name, name: 1, "steps": steps}} for name, steps in (("a", 1), ("b", 2), ("a", 3))]
    assert laid(*layers, {"r": {"x": 9}})[0] == {"r": {"architecture": "a", "a": 1, "steps": 3, "x": 9}}


def test_what_no_layer_has_stays():
    """A workflow that uses this one as a module may change the configuration after it was read."""
    layers = [{"s": PACKAGE}, {"s": {"kind": "path", "path": "x"}}]
    merged = merge(layers) | {"own": 1}
    merged["s"]["licence"] = "MIT"
    assert replace_whole(merged, layers)[0] == {"s": {"kind": "path", "path": "x", "licence": "MIT"}, "own": 1}


def test_every_discriminator_of_the_schema_is_known():
    text = (FOLDER / "config.schema.json").read_text()
    schema = json.loads(text)
    named = {part.split('"')[0] for part in text.split('"propertyName": "')[1:]}
    assert named <= set(DISCRIMINATORS)
    assert "architecture" in schema["$defs"]["Recipe"]["required"]


def test_overlay_gives_a_model_another_source_and_a_recipe_another_architecture(tmp_path):
    """The example of config/README.md."""
    block = (FOLDER / "README.md").read_text().split("recipe another architecture:\n\n```yaml\n")[1].split("```")[0]
    (tmp_path / "mine.yaml").write_text(block)
    config = read_config(FOLDER / "config.yaml", tmp_path / "mine.yaml")
    assert config.models["smollm2-135m"].source.path == "/data/SmolLM2-135M-Instruct"
    assert config.models["smollm2-135m"].n_layers == 30
    recipe = config.recipes["topk"]
    assert (recipe.architecture, recipe.k, recipe.warmup_steps) == ("relu", None, 75)
    assert {row.recipe.architecture for row in expand_rows(config)["transfer"]} == {"relu"}
