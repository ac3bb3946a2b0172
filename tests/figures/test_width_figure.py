"""Sizes of dictionaries side by side: every number is a mark, and labels belong to their SAE."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from atlas.errors import EvaluationError
from atlas.figures.captions import listed
from atlas.figures.width import draw_width, plot_width

mpl.use("Agg")
SIZES, KS, ROLES = (100, 400, 4608), (8, 32), {"in_sample": "chat", "oos": "news"}
SUFFIXES = ("pdf", "png", "txt")
SAE = {"model": "m", "hook": "resid_post.19", "mix": "chat"}


def recipe(size: int, k: int) -> str:
    return f"topk-{size}-k{k}"


@pytest.fixture
def table() -> pd.DataFrame:
    """Explained variance and redundancy grow with the size, the added loss is least in the middle."""
    rows = [
        SAE
        | {
            "study": "width_sweep",
            "recipe": recipe(size, k),
            "seed": seed,
            "n_latents": size,
            "k": k,
            "role": role,
            "corpus": corpus,
            "n_counted": 16_366,
            "atlas_explained_variance_regular": size / 5000,
            "atlas_explained_variance_regular_interval_low": size / 5000 - 0.01,
            "atlas_explained_variance_regular_interval_high": size / 5000 + 0.01,
            "random_explained_variance_regular": 0.01,
            "atlas_delta_loss": abs(np.log(size / 400)),
            "atlas_dense_pct": 100 * k / size,
            "redundancy_absorption_guide_value": size / 10_000,
            "redundancy_absorption_guide_null_mean": 0.05,
            "atlas_dead_pct": size / 1000,
            "atlas_dead_status": "untested",
            "atlas_dead_tokens": 16_384,
        }
        for size in SIZES
        for k in KS
        for seed in (0, 1)
        for role, corpus in ROLES.items()
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def labels() -> pd.DataFrame:
    rows = [
        SAE
        | {
            "recipe": recipe(size, k),
            "seed": seed,
            "dictionary": dictionary,
            "explainer": "lexical",
            "scorer": "embedding",
            "negatives": negatives,
            "score": 0.6 if dictionary == "sae" else 0.52,
            "score_interval_low": 0.5,
            "score_interval_high": 0.7,
        }
        for size in SIZES
        for k in KS
        for seed in (0, 1)
        for dictionary in ("sae", "random")
        for negatives in ("random", "hard")
    ]
    return pd.DataFrame(rows)


def marks(axis, *shapes: str) -> np.ndarray:
    """Size and height of the marks that stand for rows: lines that join means have no markers."""
    lines = [line for line in axis.lines if line.get_marker() in shapes and line.get_linestyle() == "None"]
    return np.concatenate([np.column_stack(line.get_data()) for line in lines])


def test_every_row_is_a_mark_at_its_size(table, labels):
    figure = plot_width(table, labels)
    assert figure.get_suptitle() == listed(table.model)
    axes = figure.axes
    explained = marks(axes[0], "o", "s", "^")
    assert sorted(explained[:, 0]) == sorted(table.n_latents)
    assert explained[:, 1] == pytest.approx(explained[:, 0] / 5000)
    redundancy = marks(axes[3], "D")
    assert len(redundancy) == len(table) / len(ROLES), "one mark an SAE, not one a corpus"
    assert redundancy[:, 1] == pytest.approx(redundancy[:, 0] / 10_000)


def test_lines_join_the_means_of_seeds(table, labels):
    table.loc[table.seed == 1, "atlas_delta_loss"] += 1.0
    lines = [line for line in plot_width(table, labels).axes[1].lines if line.get_linestyle() != "None"]
    assert len(lines) == len(KS) * len(ROLES)
    for line in lines:
        assert line.get_ydata() == pytest.approx(np.abs(np.log(np.array(SIZES) / 400)) + 0.5)


def test_labels_of_both_dictionaries_on_random_negatives(table, labels):
    axis = plot_width(table, labels).axes[5]
    assert sorted(marks(axis, "D")[:, 0]) == sorted([size for size in SIZES for _ in range(4)])
    assert set(marks(axis, "D")[:, 1]) == {0.6}
    assert set(marks(axis, "x")[:, 1]) == {0.52}


def test_untested_silence_is_said(table, labels):
    def notes(rows):
        return [text.get_text() for text in plot_width(rows, labels).axes[4].texts]

    assert notes(table) == ["on 16k tokens:\nuntested, not dead"]
    assert notes(table.assign(atlas_dead_status="dead")) == []


def test_labels_without_scores_leave_a_note(table, labels):
    ends = ["score", "score_interval_low", "score_interval_high"]
    axis = plot_width(table, labels.assign(**dict.fromkeys(ends, np.nan))).axes[5]
    assert [text.get_text() for text in axis.texts] == ["no label has a score"]


def test_labels_of_another_sae_are_refused(table, labels):
    with pytest.raises(EvaluationError, match=r"labels of m/resid_post\.19/chat/topk-100-k8/0, which is not in the"):
        plot_width(table[table.n_latents > 100], labels)
    with pytest.raises(EvaluationError, match=r"no label of study width_sweep was scored on random negatives"):
        plot_width(table, labels[labels.negatives == "hard"])


def test_files_depend_on_the_tables_alone(table, labels, tmp_path):
    table.to_csv(tmp_path / "t.csv", index=False)
    labels.to_csv(tmp_path / "l.csv", index=False)
    for number in (0, 1):
        targets = [tmp_path / f"{number}.{suffix}" for suffix in SUFFIXES]
        draw_width(tmp_path / "t.csv", tmp_path / "l.csv", targets)
    for suffix in SUFFIXES:
        assert (tmp_path / f"0.{suffix}").read_bytes() == (tmp_path / f"1.{suffix}").read_bytes()
    caption = (tmp_path / "0.txt").read_text()
    assert "12 SAEs (seeds 0 and 1) of m at resid_post.19 with 100, 400 and 4,608 latents, k = 8 and 32" in caption
    assert "chat (in-sample, 16,366 tokens)" in caption and "explainer lexical, scored by embedding" in caption
