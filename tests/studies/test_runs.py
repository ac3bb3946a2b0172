"""The trainings of a study side by side."""

import copy

import pandas as pd
import yaml

from atlas.studies.runs import write_runs_table

CARD = {
    "names": {"model": "m", "mix": "x", "recipe": "r"},
    "model": {"name": "m", "revision": "r0"},
    "hook": "resid_post.1",
    "sae": {"architecture": "topk", "n_latents": 64, "k": 4, "threshold": None},
    "optimisation": {"lr": 1e-3, "steps": 100},
    "mix": {"phases": [{"until": 1.0, "weights": {"chat": 1.0}}]},
    "seed": 0,
    "cost": {
        "wall_seconds": 2.5,
        "rows_per_second": 1000.0,
        "stall_share": 0.01,
        "peak_memory_mb": {"process": 800.0},
        "resumed_from_steps": [],
    },
    "outcomes": {"in_sample": {"explained_variance": 0.7, "l0": 4.0}},
    "warnings": [],
}


def table(tmp_path, **cards) -> pd.DataFrame:
    paths = {}
    for name, card in cards.items():
        paths[f"m/resid_post.1/x/{name}/seed-0"] = tmp_path / f"{name}.yaml"
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(card))
    write_runs_table(paths, tmp_path / "s_runs.csv")
    return pd.read_csv(tmp_path / "s_runs.csv")


def test_settings_that_differ_have_a_column_and_others_have_none(tmp_path):
    other = copy.deepcopy(CARD)
    other["optimisation"]["lr"] = 3e-4
    other["sae"] |= {"threshold": 0.5, "threshold_beta": 0.9}
    other["mix"]["phases"][0]["weights"] = {"chat": 0.5, "news": 0.5}
    runs = table(tmp_path, a=CARD, b=other)
    assert list(runs["optimisation.lr"]) == [1e-3, 3e-4]
    assert runs["sae.threshold"].isna().tolist() == [True, False]
    assert runs["sae.threshold_beta"].isna().tolist() == [True, False]
    assert "news" in runs["mix.phases"][1]
    assert list(runs["sae.n_latents"]) == [64, 64]
    assert not {"optimisation.steps", "model.revision", "hook.", "seed."} & set(runs)
    assert list(runs.recipe) == ["a", "b"]


def test_last_numbers_cost_and_names_of_warnings(tmp_path):
    other = copy.deepcopy(CARD)
    other["cost"] |= {"resumed_from_steps": [10, 40], "peak_memory_mb": {"process": 900.0, "gpu": 70.0}}
    other["warnings"] = ["rows_repeat: chat 7.8 times", "sparsity_constraint_broken: L0 is 9"]
    runs = table(tmp_path, a=CARD, b=other)
    assert list(runs["outcome.in_sample.explained_variance"]) == [0.7, 0.7]
    assert list(runs["cost.resumed"]) == [0, 2]
    assert runs["cost.peak_memory_mb.gpu"].isna().tolist() == [True, False]
    assert runs.warnings.isna()[0]
    assert runs.warnings[1] == "rows_repeat; sparsity_constraint_broken"


def test_one_run_differs_from_nothing(tmp_path):
    runs = table(tmp_path, a=CARD)
    assert [name for name in runs if name.startswith(("sae.", "optimisation."))] == [
        "sae.architecture",
        "sae.n_latents",
        "sae.k",
    ]
