"""Curves of the trainings of a study."""

import matplotlib as mpl
import pandas as pd
import pytest

from atlas.figures.captions import listed
from atlas.figures.training import PANELS, draw_training, plot_training

mpl.use("Agg")


def curves(threshold=None, level=0.5):
    rows = []
    for step in (10, 20, 30):
        train = {"l0": 4.0, "dead_latents": 16, "lr": 1e-3, "threshold": threshold}
        held_out = {"explained_variance": level + step / 1000, "l0": 4.5}
        rows += [{"step": step, "tokens": 1000 * step, "split": "train", **train}]
        rows += [{"step": step, "tokens": 1000 * step, "split": split, **held_out} for split in ("in_sample", "oos")]
    return pd.DataFrame(rows)


@pytest.fixture
def study():
    ids = [f"m/resid_post.{layer}/x/r/seed-{seed}" for layer in (4, 19) for seed in (0, 1)]
    runs = pd.DataFrame(
        [dict(zip(("model", "hook", "mix", "recipe", "seed"), name.split("/"), strict=True)) for name in ids]
    )
    runs["seed"] = runs.seed.str.removeprefix("seed-")
    return runs.assign(**{"sae.architecture": "topk", "sae.n_latents": 64, "sae.k": 4}), ids


def test_seeds_are_lines_of_one_colour_and_dictionaries_are_told_apart(study):
    runs, ids = study
    figure = plot_training(runs, {name: curves() for name in ids})
    assert figure.get_suptitle() == listed(runs.model)
    lines = figure.axes[0].lines
    assert len(lines) == 4
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color() == lines[3].get_color()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["resid_post.4, F = 64", "resid_post.19, F = 64"]


def test_panels_show_their_measure(study):
    runs, ids = study
    figure = plot_training(runs, {name: curves(threshold=0.25) for name in ids})
    shown = {panel.title: axis.lines[0] for panel, axis in zip(PANELS, figure.axes, strict=True)}
    assert list(shown["explained variance, in-sample"].get_xdata()) == [0.01, 0.02, 0.03]
    assert list(shown["explained variance, out-of-sample"].get_ydata()) == [0.51, 0.52, 0.53]
    assert list(shown["dead latents (%)"].get_ydata()) == [25.0] * 3
    assert list(shown["threshold"].get_ydata()) == [0.25] * 3
    assert any(text.get_text() == "k = 4" for text in figure.axes[2].texts)


def test_what_no_run_has_is_said(study):
    runs, ids = study
    figure = plot_training(runs.drop(columns="sae.k"), {name: curves() for name in ids})
    threshold = figure.axes[[panel.title for panel in PANELS].index("threshold")]
    assert not threshold.lines
    assert "none" in threshold.texts[0].get_text()
    assert not figure.axes[2].texts


def test_many_dictionaries_have_colours_of_their_own():
    ids = [f"m/resid_post.{layer}/x/r/seed-0" for layer in range(12)]
    rows = [name.split("/") for name in ids]
    runs = pd.DataFrame(rows, columns=["model", "hook", "mix", "recipe", "seed"]).assign(**{"sae.n_latents": 64})
    runs["seed"] = "0"
    figure = plot_training(runs, {name: curves() for name in ids})
    assert len({line.get_color() for line in figure.axes[0].lines}) == 12


def test_files_depend_on_the_curves_alone(study, tmp_path):
    runs, ids = study
    runs.to_csv(tmp_path / "runs.csv", index=False)
    paths = {name: tmp_path / f"{number}.parquet" for number, name in enumerate(ids)}
    for path in paths.values():
        curves().to_parquet(path)
    for number in (0, 1):
        draw_training(
            tmp_path / "runs.csv", paths, [tmp_path / f"{number}.{suffix}" for suffix in ("pdf", "png", "txt")]
        )
    for suffix in ("pdf", "png", "txt"):
        assert (tmp_path / f"0.{suffix}").read_bytes() == (tmp_path / f"1.{suffix}").read_bytes()
    assert "Trainings of 4 SAEs (seeds 0 and 1) of m, each on 30,000 rows." in (tmp_path / "0.txt").read_text()
