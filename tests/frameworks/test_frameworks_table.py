"""Table and figure from planted results."""

import matplotlib as mpl
import pandas as pd
import pytest

from atlas.figures.frameworks import PANELS, draw_frameworks, plot_frameworks
from atlas.files import write_json
from atlas.frameworks.launch import FrameworkError
from atlas.frameworks.table import RunFiles, write_frameworks_table

mpl.use("Agg")

SPEEDS = {"atlas": 8000.0, "sparsify": 2000.0, "saelens": None}
LOSSES = {"atlas": 0.2, "sparsify": 0.22, "saelens": 0.1}


def run_files(folder, contender: str, recipe: str = "topk", seed: int = 0) -> RunFiles:
    place = folder / contender / recipe / str(seed)
    job = {"architecture": "topk", "d_model": 8, "n_latents": 32, "k": 4, "steps": 10, "batch_size": 64}
    result = {
        "framework": contender, "version": "1.2", "torch": "2", "threads": 2, "seconds": 1.5, "peak_memory_mb": 700.0,
        "rows_per_second": SPEEDS[contender], "median_step_seconds": 0.1,
        "job": job | {"options": {"autocast": True} if contender == "saelens" else {}, "device": "cpu"},
    }  # fmt: skip
    atlas = {
        "explained_variance": 0.7, "explained_variance_interval": [0.6, 0.8] if contender == "atlas" else None,
        "explained_variance_regular": 0.65, "loss_recovered_zero": 0.9, "delta_loss": 0.4, "l0": 4.0, "dead_pct": 3.0,
        "loss_recovered_mean": 0.6, "dead_status": "untested", "dead_tokens": 1024,
    }  # fmt: skip
    metrics = {
        "redundancy": {"absorption_guide": {"value": 0.3, "null_mean": 0.2, "null_sd": 0.01}},
        "corpora": {"chat": {"atlas": atlas, "outcome": {"atlas": {"verdict": "good"}}}},
    }
    files = RunFiles(place / "result.json", place / "held_out.json", place / "metrics.json")
    write_json(files.result, result)
    write_json(files.held_out, {"loss": LOSSES[contender] * (1 + seed), "rows": 10})
    write_json(files.metrics, metrics)
    return files


@pytest.fixture
def table(tmp_path):
    runs = {f"{name}/topk/seed-{seed}": run_files(tmp_path, name, "topk", seed) for name in SPEEDS for seed in (0, 1)}
    write_frameworks_table(runs, "chat", tmp_path / "frameworks.csv")
    return tmp_path / "frameworks.csv"


def test_every_contender_is_compared_with_ours_of_its_seed(table):
    rows = pd.read_csv(table).set_index(["contender", "seed"])
    assert rows.ours_times_rows_per_second["atlas", 0] == 1
    assert rows.ours_times_rows_per_second["sparsify", 0] == 4
    assert pd.isna(rows.ours_times_rows_per_second["saelens", 0])
    assert rows.held_out_loss["sparsify", 1] == pytest.approx(0.44)
    assert rows.held_out_loss_over_ours["sparsify", 1] == pytest.approx(1.1)


def test_row_has_what_was_measured_and_judged(table):
    row = pd.read_csv(table).iloc[0]
    assert (row.framework, row.architecture, row.n_latents, row.threads) == ("atlas", "topk", 32, 2)
    assert (row.explained_variance, row.explained_variance_low, row.loss_recovered) == (0.7, 0.6, 0.9)
    assert row.loss_recovered_mean == 0.6
    assert (row.absorption_guide, row.absorption_guide_null_mean, row.outcome) == (0.3, 0.2, "good")
    assert pd.read_csv(table).query("contender == 'saelens'").options.tolist() == ["autocast=True"] * 2


def test_no_runs_is_an_error(tmp_path):
    with pytest.raises(FrameworkError, match="has no section 'frameworks'"):
        write_frameworks_table({}, "chat", tmp_path / "frameworks.csv")
    assert not (tmp_path / "frameworks.csv").exists()


def test_figure_shows_each_run_at_its_contender(table):
    figure = plot_frameworks(pd.read_csv(table))
    by_title = dict(zip([panel.column for panel in PANELS], figure.axes, strict=True))
    points = [line for line in by_title["rows_per_second"].lines if line.get_marker() == "o"]
    assert sorted((line.get_ydata()[0], line.get_xdata()[0]) for line in points if line.get_xdata()[0] > 0) == [
        (0, 8.0), (0, 8.0), (1, 2.0), (1, 2.0)
    ]  # fmt: skip
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["atlas", "sparsify", "saelens"]
    intervals = [line for line in by_title["explained_variance"].lines if line.get_marker() != "o"]
    assert [list(line.get_xdata()) for line in intervals] == [[0.6, 0.8]] * 2
    assert by_title["peak_memory_mb"].lines[0].get_xdata()[0] == pytest.approx(0.7)
    written = [text.get_text() for text in by_title["rows_per_second"].texts]
    assert sorted(written) == ["2.0", "8.0", "not defined"]
    assert "silent on 1k tokens: untested" in figure._supxlabel.get_text()


def test_figure_is_written_in_the_format_of_its_name(table, tmp_path):
    draw_frameworks(table, [tmp_path / f"f.{suffix}" for suffix in ("pdf", "png", "txt")])
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    caption = (tmp_path / "f.txt").read_text()
    assert (
        "trained by atlas, sparsify and saelens" in caption
        and "on 1,024 tokens of chat; 6 runs, seeds 0 and 1" in caption
    )
