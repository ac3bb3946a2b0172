import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from atlas.figures.captions import listed
from atlas.figures.study import draw_study, plot_study

mpl.use("Agg")


@pytest.fixture
def table() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [(layer, seed, role) for layer in (4, 10, 19) for seed in (0, 1) for role in ("in_sample", "oos")]
    table = pd.DataFrame(rows, columns=["layer", "seed", "role"])
    values = {
        f"guide_{name}": generator.random(len(table)) for name in ("loss_recovered_pct", "l0", "dead_pct", "absorption")
    }
    return table.assign(
        study="sweep",
        model="m",
        mix="chat",
        recipe="topk",
        n_counted=16_000,
        hook="resid_post." + table.layer.astype(str),
        target_hook=None,
        n_latents=400,
        k=32,
        corpus=table.role.map({"in_sample": "chat", "oos": "news"}),
        outcome="good",
        learnt="untested",
        guide_outcome="under-capacity",
        atlas_loss_recovered_zero=0.7,
        atlas_loss_recovered_zero_interval_low=0.6,
        atlas_loss_recovered_zero_interval_high=0.8,
        atlas_loss_recovered_mean_regular=0.4,
        atlas_loss_recovered_mean_regular_interval_low=0.3,
        atlas_loss_recovered_mean_regular_interval_high=0.5,
        atlas_l0=32.0,
        atlas_dead_pct=1.0,
        atlas_dead_status="untested",
        atlas_dead_tokens=16_000,
        redundancy_absorption_guide_value=0.2,
        redundancy_absorption_guide_null_mean=0.1,
        redundancy_absorption_guide_null_sd=0.01,
        published_model="org/model",
        published_outcome="failed",
        published_loss_recovered_pct=50.0,
        published_l0=100.0,
        published_dead_pct=3.0,
        published_absorption=0.3,
        **values,
    )


def marks(axis) -> list[float]:
    """Heights of the filled and hollow marks (lines without a marker are intervals and rules)."""
    return [line.get_ydata()[0] for line in axis.lines if line.get_marker() not in (None, "None", "")]


def test_every_row_is_a_mark_and_every_layer_a_published_one(table):
    figure = plot_study(table)
    assert figure.get_suptitle() == listed(table.model)
    axes = figure.axes
    assert len(marks(axes[0])) == len(table) + 3
    assert len(marks(axes[4])) == 2 * len(table)
    assert set(marks(axes[4])) == {70.0, 40.0}


def test_loss_recovered_is_shown_against_both_ablations(table):
    """Filled against zero, hollow against the mean, each with its interval; and said in the panel."""
    axis = plot_study(table).axes[4]
    faces = {line.get_ydata()[0]: line.get_markerfacecolor() for line in axis.lines if line.get_marker() in "os^"}
    assert faces[40.0] == "white" and faces[70.0] != "white"
    bars = {tuple(line.get_ydata()) for line in axis.lines if len(line.get_ydata()) == 2}
    assert {(60.0, 80.0), (30.0, 50.0)} <= bars
    assert any("hollow: mean ablation" in text.get_text() for text in axis.texts)


def test_no_share_is_drawn_outside_its_panel(table):
    """A mean that is beaten makes a share negative; one far below is a number at the edge."""
    table.loc[0, "atlas_loss_recovered_mean_regular"], table.loc[1, "atlas_loss_recovered_mean_regular"] = -0.5, -7.0
    axis = plot_study(table).axes[4]
    assert min(marks(axis)) >= axis.get_ylim()[0] == -100
    assert -50.0 in marks(axis)
    assert "-700" in [text.get_text() for text in axis.texts]


def test_untested_deadness_is_said(table):
    texts = [text.get_text() for text in plot_study(table).axes[6].texts]
    assert any("untested" in text and "16k" in text for text in texts)
    tested = plot_study(table.assign(atlas_dead_status="dead")).axes[6].texts
    assert not any("untested" in text.get_text() for text in tested)


def test_missing_values_and_a_study_without_published_rows_are_drawn(table):
    published = [column for column in table if column.startswith("published")]
    figure = plot_study(table.assign(**dict.fromkeys(published), atlas_loss_recovered_zero=np.nan))
    assert len(marks(figure.axes[0])) == len(table)
    assert all("published" not in text.get_text() for text in figure.legends[0].get_texts())


def test_a_transcoder_stands_beside_the_sae_of_its_input(table):
    transcoders = table.assign(target_hook="mlp_out.30")
    axis = plot_study(pd.concat([table, transcoders])).axes[4]
    assert len(marks(axis)) == 2 * 2 * len(table)
    labels = [label.get_text() for label in axis.get_xticklabels()]
    assert labels == [f"{layer}\n400{kind}" for layer in (4, 10, 19) for kind in ("", "\ntranscoder")]


def test_files_depend_on_the_table_alone(table, tmp_path):
    table.to_csv(tmp_path / "t.csv", index=False)
    for number in (0, 1):
        draw_study(tmp_path / "t.csv", [tmp_path / f"{number}.{suffix}" for suffix in ("pdf", "png", "txt")])
    for suffix in ("pdf", "png", "txt"):
        assert (tmp_path / f"0.{suffix}").read_bytes() == (tmp_path / f"1.{suffix}").read_bytes()
    caption = (tmp_path / "0.txt").read_text()
    assert "6 SAEs (seeds 0 and 1) of m, judged on chat (in-sample, 16,000 tokens)" in caption
    assert "hollow against the mean row, both" in caption
    assert "Hollow diamonds: published for org/model." in caption
