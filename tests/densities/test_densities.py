"""Histograms of firing densities, of planted numbers of firings."""

import numpy as np
import pandas as pd
import pytest

from atlas.densities.figure import describe_densities, draw_densities
from atlas.densities.study_table import EDGES, histogram, write_densities_table
from atlas.errors import EvaluationError
from atlas.latents.table import write_sae_table
from atlas.tables import read_csv

SAE = "llama/resid_post.1/chat/topk/seed-0"


def latents(path, firings: dict[str, list[int]], corpora=("chat", "news"), sae_id=SAE):
    frames = [
        pd.DataFrame({"dictionary": name, "corpus": corpus, "role": role, "n_tokens": 1000, "n_firings": numbers})
        for name, numbers in firings.items()
        for corpus, role in zip(corpora, ("in_sample", "oos"), strict=False)
    ]
    write_sae_table(path, pd.concat(frames, ignore_index=True), ["dictionary"], sae_id, "0" * 64)
    return path


def test_planted_firings_are_in_their_bins():
    never, counts = histogram(np.array([0, 0, 1, 9, 10, 99, 100, 500, 1000]), 1000)
    found = {
        (round(low, 9), round(high, 9)): int(n) for low, high, n in zip(EDGES[:-1], EDGES[1:], counts, strict=True)
    }
    assert never == 2
    half = 0.316
    expected = {
        (0.001, 0.01 * half): 1,
        (0.01 * half, 0.01): 1,
        (0.01, 0.1 * half): 1,
        (0.1 * half, 0.1): 1,
        (0.1, half): 1,
        (half, 1.0): 2,  # one fires on every token
    }
    assert {place: n for place, n in found.items() if n} == {
        (round(low, 9), round(high, 9)): n for (low, high), n in expected.items()
    }


def test_rare_latents_are_in_the_first_bin():
    never, counts = histogram(np.array([1]), 10**9)
    assert (never, counts[0], counts.sum()) == (0, 1, 1)


def test_every_latent_is_counted_once_beside_the_random_dictionary(tmp_path):
    file = latents(tmp_path / "latents.parquet", {"sae": [0, 5, 50, 500], "random": [0, 0, 0, 1]})
    write_densities_table("s", {SAE: file}, {SAE: ["chat"]}, tmp_path / "s_densities.csv")
    table = read_csv(tmp_path / "s_densities.csv")
    assert set(table.corpus) == {"chat"}
    assert table.groupby("dictionary").n_latents.sum().to_dict() == {"random": 4, "sae": 4}
    silent = table[table.high == 0].set_index("dictionary")
    assert silent.share.to_dict() == {"random": 0.75, "sae": 0.25}
    assert table.groupby("dictionary").share.sum().to_dict() == pytest.approx({"random": 1.0, "sae": 1.0})


def test_a_table_of_another_sae_is_refused(tmp_path):
    file = latents(tmp_path / "latents.parquet", {"sae": [1]}, sae_id="other")
    with pytest.raises(EvaluationError, match=r"is of SAE 'other', expected 'llama/"):
        write_densities_table("s", {SAE: file}, {SAE: ["chat"]}, tmp_path / "t.csv")


def test_the_figure_says_what_it_shows(tmp_path):
    file = latents(tmp_path / "latents.parquet", {"sae": [0, 5, 50, 500], "random": [0, 0, 0, 1]})
    write_densities_table("s", {SAE: file}, {SAE: ["chat", "news"]}, tmp_path / "s.csv")
    targets = [tmp_path / f"f.{suffix}" for suffix in ("pdf", "png", "txt")]
    draw_densities(tmp_path / "s.csv", targets)
    assert all(target.stat().st_size for target in targets)
    caption = describe_densities(read_csv(tmp_path / "s.csv"))
    assert "1 SAE (seed 0) of llama on chat (in-sample, 1,000 tokens)" in caption
