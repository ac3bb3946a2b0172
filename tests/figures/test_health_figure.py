"""The figure of health: silent latents against tokens, and that every panel shows what its tables hold."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.stats import hypergeom

from atlas.errors import EvaluationError
from atlas.evaluation.sparsity import expected_false_dead
from atlas.figures.series import name_series, series_colours
from atlas.latents.figure import at_home, draw_health, named_latents, plot_health, silent_on

mpl.use("Agg")

T = 1000


def sae(hook: str, seed: int, target=None) -> dict:
    return {"model": "m", "hook": hook, "target_hook": target, "mix": "chat", "recipe": "topk", "seed": seed}


@pytest.fixture
def study() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two hooks, two seeds, 20 latents; on chat, of the first hook half never fire; a row under a shift."""
    values = {"atlas_explained_variance": 0.9, "random_explained_variance_regular": 0.1}
    values |= {f"atlas_explained_variance_regular{end}": 0.6 for end in ("", "_interval_low", "_interval_high")}
    rows, latents = [], []
    for hook in ("resid_post.1", "resid_post.2"):
        for seed in (0, 1):
            for corpus, role in (("chat", "in_sample"), ("news", "oos")):
                own = sae(hook, seed) | {"corpus": corpus, "role": role}
                rows.append(own | values | {"study": "s", "shift": None, "n_counted": T, "n_latents": 20})
                for dictionary, number in [(name, number) for name in ("sae", "random") for number in range(20)]:
                    firings = 0 if hook == "resid_post.1" and number < 10 else 50 if corpus == "chat" else 500
                    latents.append(own | {"dictionary": dictionary, "n_tokens": T, "n_firings": firings})
    moved = rows[0] | {"shift": "moved", "hook": "resid_post.9"}
    latents = pd.DataFrame(latents).assign(density=lambda t: t.n_firings / T, max_cosine=np.linspace(0, 0.8, 320))
    return pd.DataFrame([*rows, moved]), latents


def plotted(study):
    rows = at_home(study[0])
    latents = named_latents(study[1], rows)
    return plot_health(rows, latents), latents


def test_silence_on_fewer_tokens_is_the_hypergeometric_chance():
    firings = np.array([0, 1, 1, 7, 300, T])
    for sample in (1, 2, 10, 999):
        silent, _ = silent_on(firings, T, sample)
        assert silent == pytest.approx(hypergeom.pmf(0, T, firings, sample).sum(), rel=1e-9)
    assert silent_on(firings, T, 1)[0] > silent_on(firings, T, 100)[0] > silent_on(firings, T, T)[0] == 1


def test_the_estimate_at_all_tokens_is_that_of_the_metrics():
    firings = np.array([0] * 30 + [1] * 6 + [2] * 3 + [40] * 10)
    assert silent_on(firings, T, T)[1] == pytest.approx(expected_false_dead(firings))


def test_the_silent_share_falls_to_what_is_silent_on_all_tokens(study):
    axis = plotted(study)[0].axes[0]
    first, _, second, _ = axis.lines
    assert first.get_ydata()[-1] == pytest.approx(50) and second.get_ydata()[-1] == pytest.approx(0, abs=1e-9)
    assert first.get_ydata()[0] > 50 and list(first.get_xdata())[-1] == T


def test_series_pool_seeds_on_the_in_sample_corpus_and_leave_out_what_was_moved(study):
    figure, latents = plotted(study)
    assert set(latents.corpus) == {"chat"} and set(latents.density) == {0.0, 0.05}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:2] == ["resid_post.1, F = 20", "resid_post.2, F = 20"] and "resid_post.9" not in " ".join(names)
    solid, dashed = figure.axes[2].patches[0], figure.axes[2].patches[2]
    assert solid.get_data().values.sum() == pytest.approx(50)  # of latents; the others never fired
    assert dashed.get_linestyle() != solid.get_linestyle()
    cosines = figure.axes[3].lines[0].get_ydata()
    assert len(cosines) == 2 * 20 and (np.diff(cosines) <= 0).all()


def test_explained_variance_with_and_without_massive_activations(study):
    axis = plotted(study)[0].axes[1]
    marks = [line for line in axis.lines if line.get_marker() in ("o", "^")]
    assert sorted({float(line.get_ydata()[0]) for line in marks}) == [0.6, 0.9] and len(marks) == 2 * 2 * 2 * 2
    failed = study[0].assign(atlas_explained_variance=-40.0)
    axis = plotted((failed, study[1]))[0].axes[1]
    assert "there or below" in axis.get_title()
    assert min(line.get_ydata()[0] for line in axis.lines) == -0.5


def test_files_and_caption(study, tmp_path):
    study[0].to_csv(tmp_path / "s.csv", index=False)
    study[1].to_parquet(tmp_path / "l.parquet")
    draw_health(tmp_path / "s.csv", tmp_path / "l.parquet", [tmp_path / f"f.{end}" for end in ("pdf", "png", "txt")])
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF") and (tmp_path / "f.png").stat().st_size > 20_000
    caption = (tmp_path / "f.txt").read_text()
    assert "health of 4 SAEs (seeds 0 and 1) of m" in caption and "drawn at random from the 1,000 of chat" in caption


def test_series_are_named_by_what_tells_them_apart():
    rows = pd.DataFrame([sae("a.1", 0), sae("a.1", 1), sae("a.1", 0, "b.2")]).assign(n_latents=[1200, 1200, 8])
    assert name_series(rows).series.tolist() == ["a.1, F = 1,200", "a.1, F = 1,200", "a.1 to b.2, F = 8"]
    with pytest.raises(EvaluationError, match="several sizes"):
        name_series(rows[:2].assign(n_latents=[1, 2]))
    assert len(set(map(str, series_colours([*"abcdefghijkl"]).values()))) == 12
