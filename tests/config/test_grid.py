"""Which studies are a grid of sizes."""

import copy

import pytest
import yaml

from atlas.config.grid import has_budgets, is_grid
from atlas.config.load import load_config
from atlas.config.reference import FOLDER
from atlas.config.rows import expand_rows

RAW = yaml.safe_load((FOLDER / "config.yaml").read_text())


def grids(raw: dict) -> list[str]:
    return [name for name, rows in expand_rows(load_config(raw)).items() if is_grid(rows)]


def test_the_width_sweep_is_the_only_grid_of_the_default():
    assert grids(RAW) == ["width_sweep"]


def test_the_width_sweep_has_every_size_with_every_k():
    rows = expand_rows(load_config(RAW))["width_sweep"]
    sizes, ks = ({getattr(row.recipe, key) for row in rows} for key in ("n_latents", "k"))
    assert {(row.recipe.n_latents, row.recipe.k) for row in rows} == {(size, k) for size in sizes for k in ks}
    sweep = {row.sae_id: row for row in expand_rows(load_config(RAW))["llama_sweep"]}
    assert any(row.sae_id in sweep for row in rows), "one size is the sweep's own SAE: it is trained once"


@pytest.mark.parametrize(
    "rows",
    [
        [{"recipe": "topk"}],
        [{"recipe": "topk"}, {"recipe": "topk-400-k8"}],
        [{"recipe": "topk"}, {"recipe": "topk-1200-k32", "hook": "resid_post.10"}],
        [{"recipe": "topk"}, {"recipe": "topk-1200-k32", "override": {"lr": 1.0e-4}}],
        [{"recipe": "topk"}, {"recipe": "topk-1200-k32", "shift": "at-layer-28"}],
        [{"recipe": "topk"}, {"recipe": "topk-1200-k32", "intended": "good", "cause": "none"}],
    ],
    ids=["one size", "one size, two k", "two hooks", "another learning rate", "a shift", "a cause"],
)
def test_what_differs_in_more_than_size_is_no_grid(rows):
    raw = copy.deepcopy(RAW)
    study = raw["studies"]["width_sweep"]
    raw["studies"]["width_sweep"] = study | {"rows": [{"hook": "resid_post.19"} | row for row in rows]}
    assert grids(raw) == []


def budgets(*rows: dict) -> bool:
    """Ask of rows that are the sweep's recipe but for its length, here named `short`, and what they name."""
    raw = copy.deepcopy(RAW)
    long, half = raw["recipes"]["topk"], {"steps": raw["recipes"]["topk"]["steps"] // 2, "warmup_steps": 7}
    raw["recipes"] |= {
        "short": long | half,
        "narrow": long | half | {"n_latents": 400},
        "slow": long | half | {"lr": 1e-4},
    }
    rows = [{"hook": "resid_post.19", "recipe": "topk"} | row for row in rows]
    raw["studies"]["width_sweep"] = raw["studies"]["width_sweep"] | {"rows": rows}
    return has_budgets(expand_rows(load_config(raw))["width_sweep"])


def test_rows_that_differ_in_length_and_what_follows_it_have_budgets():
    assert budgets({}, {"recipe": "short"})
    assert budgets({}, {"recipe": "short"}, {"recipe": "narrow"})


@pytest.mark.parametrize(
    "rows",
    [
        [{}],
        [{"recipe": "short"}, {"recipe": "narrow"}],
        [{}, {"recipe": "slow"}],
        [{}, {"recipe": "short", "hook": "resid_post.10"}],
        [{}, {"recipe": "short", "shift": "at-layer-28"}],
    ],
    ids=["one row", "one length", "another learning rate", "two hooks", "a shift"],
)
def test_other_rows_have_none(rows):
    assert not budgets(*rows)
