"""The figure of stability and drift: every value beside its nulls."""

import matplotlib as mpl
import pandas as pd
import pytest

from atlas.figures.series import name_series, with_series
from atlas.stability.figure import draw_stability, plot_stability

mpl.use("Agg")

VALUES = {"firing_pw_mcc": 0.5, "firing_shared": 0.25}
NULLS = {"null": 0.1, "spectrum_null": 0.2}


@pytest.fixture
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = []
    for hook in ("resid_post.1", "resid_post.2"):
        for seed in (0, 1):
            row = {"study": "s", "model": "m", "hook": hook, "target_hook": None, "mix": "chat", "recipe": "topk"}
            row |= {"seed": seed, "corpus": "chat", "n_rows": 900, "n_latents": 64}
            for name, value in VALUES.items():
                row |= {f"{name}_value": value, f"{name}_interval_low": value - 0.1}
                row |= {f"{name}_interval_high": value + 0.1}
                row |= {f"{name}_{null}_mean": mean for null, mean in NULLS.items()}
            rows.append(row | {"firing_jaccard_partners": 0.3, "firing_jaccard_random": 0.05})
    seeds = pd.DataFrame(rows)
    name = "drift_js_divergence"
    numbers = {
        f"{name}_halves": 0.05,
        f"{name}_null_mean": 0.02,
        f"{name}_null_sd": 0.005,
        f"random_{name}_halves": 0.03,
    }
    text = pd.concat(
        [
            seeds[["study", "model", "hook", "target_hook", "mix", "recipe", "seed"]].assign(
                corpus=corpus, role=role, n_tokens=950, **(numbers if role == "oos" else dict.fromkeys(numbers))
            )
            for corpus, role in (("chat", "in_sample"), ("news", "oos"))
        ]
    )
    return seeds, text


def plotted(seeds, text):
    named = name_series(seeds)
    return plot_stability(named, with_series(text, named)).axes


def marks(axis, marker: str) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() == marker]


def test_every_sae_is_a_point_between_its_nulls(tables):
    axes = plotted(*tables)
    assert marks(axes[0], "o") == [0.5] * 4 and sorted(marks(axes[0], "|")) == [0.1] * 4 + [0.2] * 4
    assert marks(axes[1], "o") == [0.25] * 4
    assert marks(axes[2], "o") == [0.3] * 4 and marks(axes[2], "|") == [0.05] * 4


def test_drift_stands_beside_the_halves_of_one_text_and_the_random_dictionary(tables):
    axis = plotted(*tables)[3]
    assert sorted(marks(axis, "^")) == [0.03] * 4 + [0.05] * 4
    bands = [tuple(line.get_xdata()) for line in axis.lines if line.get_marker() == "None"]
    assert bands == [pytest.approx((0.01, 0.03))] * 4


def test_points_of_a_dictionary_stay_on_its_line(tables):
    axes = plotted(*tables)
    heights = [float(line.get_ydata()[0]) for line in axes[3].lines if line.get_marker() == "^"]
    assert sorted(round(y) for y in heights) == [0] * 4 + [1] * 4
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["resid_post.1\nF = 64", "resid_post.2\nF = 64"]


def test_one_seed_is_said(tables, tmp_path):
    seeds, text = tables
    lonely = seeds.seed.eq(0) & seeds.hook.eq("resid_post.1")
    compared = [name for name in seeds if name.startswith("firing_")]
    seeds.loc[lonely, [*compared, "corpus", "n_rows"]] = None
    seeds[lonely | seeds.hook.eq("resid_post.2")].to_csv(tmp_path / "s.csv", index=False)
    text.to_csv(tmp_path / "h.csv", index=False)
    draw_stability(tmp_path / "s.csv", tmp_path / "h.csv", [tmp_path / f"f.{end}" for end in ("pdf", "png", "txt")])
    caption = (tmp_path / "f.txt").read_text()
    assert "Without another seed: resid_post.1, F = 64." in caption
    assert "3 SAEs (seeds 0 and 1) of m" in caption and "news (out-of-sample, 950 tokens)" in caption
    assert (tmp_path / "f.png").stat().st_size > 20_000
    alone = plotted(seeds[lonely], text)[0]
    assert any("nothing to compare" in written.get_text() for written in alone.texts)
