"""The figure of labels: rank correlations with intervals, and a drawing from a table."""

import numpy as np
import pandas as pd

from atlas.autointerp.figure import draw_autointerp


def test_figure_from_a_table(tmp_path):
    generator = np.random.default_rng(0)
    rows = [
        {
            "study": "sweep",
            "model": "m",
            "hook": f"resid_post.{hook}",
            "target_hook": None,
            "mix": "chat",
            "recipe": "topk",
            "seed": seed,
            "dictionary": dictionary,
            "explainer": "lexical",
            "scorer": "embedding",
            "negatives": "random",
            "n_scored": 40,
            "fvu": 0.1 * hook if dictionary == "sae" else None,
            "absorption_guide": generator.random(),
            "labels_repeated_semantic": generator.random(),
            **{f"{name}{end}": generator.random() for name in ("score", "specificity") for end in ENDS},
        }
        for hook in range(4)
        for seed in (0, 1)
        for dictionary in ("sae", "random")
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    draw_autointerp(tmp_path / "table.csv", [tmp_path / f"a.{suffix}" for suffix in ("png", "pdf", "txt")])
    assert (tmp_path / "a.png").stat().st_size > 20_000
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (
        "labels of 8 SAEs (seeds 0 and 1) of m, by explainer lexical; scores of 40" in (tmp_path / "a.txt").read_text()
    )


ENDS = ("", "_interval_low", "_interval_high")
