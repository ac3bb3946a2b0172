"""The rows that the guide published, as data."""

from functools import cache
from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("published.csv")
VALUES = ("model", "loss_recovered_pct", "l0", "dead_pct", "absorption", "outcome")


@cache
def published_rows() -> pd.DataFrame:
    """One row per published SAE: case_study, model, layer, latents and the values of `VALUES`.

    Percentages are 0 to 100; a value that the guide does not give is missing. They were computed under what
    docs/metrics.md calls the guide protocol, on other models and text than the embedded ones.
    """
    return pd.read_csv(FILE)


def published_for(case_study: str | None, layer: int, n_latents: int) -> dict[str, object]:
    """The published values of a layer and size as ``published_<name>``; None where there are none."""
    rows = published_rows()
    match = rows[(rows.case_study == case_study) & (rows.layer == layer) & (rows.latents == n_latents)]
    found = {} if match.empty else match.iloc[0].to_dict()
    return {f"published_{name}": found.get(name) for name in VALUES}
