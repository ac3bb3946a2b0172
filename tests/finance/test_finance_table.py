"""The table of a study of training text and its figure, from planted results."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from atlas.errors import EvaluationError
from atlas.figures.captions import listed
from atlas.finance.figure import PANELS, draw_finance, plot_finance
from atlas.finance.study_table import write_finance_table

MIXES = {"generic": 0.0, "finance": 0.2, "static": 0.1}
SAES = {f"m/resid_post.1/{mix}/topk/seed-{seed}": gain for mix, gain in MIXES.items() for seed in (0, 1)}
NAMES = [*{column for panel in PANELS for column in panel.columns.values() if not column.startswith("gain_")}]


def result(sae_id: str, gain: float, **changes) -> dict:
    values = {
        "sae_id": sae_id,
        "corpus": "finance",
        "n_tokens": 100,
        "n_documents": 20,
        "loss_documents": 20,
        "reasons": {},
    }
    for name in NAMES:
        values |= {name: 0.5 + gain, f"{name}_interval": [0.3 + gain, 0.7 + gain], f"random_{name}": 0.1}
    nulls = {f"latents_{kind}_null_mean": 0.0 for kind in ("number", "ratio", "entity")}
    return values | nulls | {"delta_loss_ratio": None, "delta_loss_ratio_interval": None} | changes


def write(folder: Path, **changes) -> dict[str, dict[str, Path]]:
    """Draws share their noise, as those on the same documents do: only a tenth of it is an SAE's own."""
    files: dict[str, dict[str, Path]] = {"results": {}, "draws": {}}
    shared = np.random.default_rng(0).normal(0, 0.1, 500)
    for number, (sae_id, gain) in enumerate(SAES.items()):
        place = folder / str(number)
        place.mkdir(exist_ok=True)
        (place / "finance.json").write_text(json.dumps(result(sae_id, gain) | changes.get(sae_id, {})))
        own = np.random.default_rng(number + 1).normal(0, 0.01, 500)
        draws = pd.DataFrame({name: 0.5 + gain + shared + own for name in NAMES if name != "delta_loss_ratio"})
        draws.to_parquet(place / "draws.parquet")
        files["results"][sae_id], files["draws"][sae_id] = place / "finance.json", place / "draws.parquet"
    return files


def baselines() -> dict[str, str | None]:
    return {sae_id: sae_id.replace(sae_id.split("/")[2], "generic") for sae_id in SAES}


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    files = write(tmp_path)
    write_finance_table("s", files["results"], files["draws"], baselines(), tmp_path / "s_finance.csv")
    return pd.read_csv(tmp_path / "s_finance.csv")


def test_one_row_per_sae_with_intervals(table):
    assert list(table.mix) == [mix for mix in MIXES for _ in range(2)]
    assert list(table.seed) == [0, 1] * 3
    row = table.iloc[2]
    assert (row.explained_variance_number, row.explained_variance_number_interval_low) == pytest.approx((0.7, 0.5))
    assert pd.isna(row.delta_loss_ratio) and pd.isna(row.get("gain_delta_loss_ratio"))


def test_gains_are_paired_draw_by_draw(table):
    assert table.gain_turnover_excess.isna().tolist() == [True] * 2 + [False] * 4
    assert table.baseline_mix.isna().tolist() == [True] * 2 + [False] * 4
    finance = table[table.mix == "finance"]
    assert finance.gain_explained_variance_entity.tolist() == pytest.approx([0.2, 0.2])
    width = finance.gain_explained_variance_entity_interval_high - finance.gain_explained_variance_entity_interval_low
    # The shared noise of .1 is gone: what is left is that of two SAEs, sqrt(2) · .01; 2.093 is Student's t for 20.
    assert width.to_numpy() == pytest.approx(2 * 2.093 * np.sqrt(20 / 19) * np.sqrt(2) * 0.01, rel=0.1)


def test_results_that_do_not_belong_together_are_refused(tmp_path):
    first, other = list(SAES)[:2]
    files = write(tmp_path, **{first: {"sae_id": other}})
    with pytest.raises(EvaluationError, match=r"finance\.json: is of SAE 'm/.*seed-1', expected 'm/.*seed-0'"):
        write_finance_table("s", files["results"], files["draws"], baselines(), tmp_path / "s.csv")
    files = write(tmp_path, **{list(SAES)[2]: {"n_tokens": 99}})
    with pytest.raises(EvaluationError, match="n_tokens is 99, but 100 of its baseline"):
        write_finance_table("s", files["results"], files["draws"], baselines(), tmp_path / "s.csv")


def study_table() -> pd.DataFrame:
    rows = []
    for sae_id, gain in SAES.items():
        _, hook, mix, recipe, seed = sae_id.split("/")
        for corpus in ("chat", "finance"):
            row = {"mix": mix, "hook": hook, "recipe": recipe, "seed": int(seed[-1]), "corpus": corpus}
            row |= {"study": "mixes", "model": "m", "role": "oos", "n_counted": 500}
            name = "atlas_explained_variance_regular"
            row |= {name: 0.6 + gain, f"{name}_interval_low": 0.5, f"{name}_interval_high": 0.9}
            rows.append(row | {"random_explained_variance_regular": 0.1})
    return pd.DataFrame(rows)


def test_figure_draws_every_sae_with_its_interval(table, tmp_path):
    figure = plot_finance(study_table(), table)
    assert figure.get_suptitle() == listed(study_table().model)
    first, gains = figure.axes[0], figure.axes[2]
    marks = [line for line in first.lines if line.get_marker() in ("o", "s", "^")]
    assert len(marks) == len(SAES) * 2
    assert sorted({round(float(line.get_ydata()[0]), 3) for line in marks}) == [0.6, 0.7, 0.8]
    assert sum(line.get_marker() == "None" for line in first.lines) == len(SAES) * 2  # intervals
    # The general mix is what gains are over: it has none.
    assert sum(line.get_marker() == "o" for line in gains.lines) == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()][:3] == [f"{mix} mix" for mix in MIXES]
    plt.close(figure)
    study_table().to_csv(tmp_path / "s.csv", index=False)
    table.to_csv(tmp_path / "f.csv", index=False)
    draw_finance(tmp_path / "s.csv", tmp_path / "f.csv", [tmp_path / f"f.{suffix}" for suffix in ("pdf", "png", "txt")])
    assert (tmp_path / "f.pdf").stat().st_size > 1000
    assert "by kind of token on 100 tokens of finance" in (tmp_path / "f.txt").read_text()
