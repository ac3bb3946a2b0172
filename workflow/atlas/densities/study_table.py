"""Histograms of firing densities: one row per SAE, corpus, dictionary and bin."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from atlas.sae_files import require_sae
from atlas.studies.rows import frame_of, identity
from atlas.tables import read_arrow, write_csv

DECADES, BINS_PER_DECADE = 6, 2
# Edges of the bins; a bin has its lower edge. The first begins at 0 and has what fires, however rarely.
_EXPONENTS = [place / BINS_PER_DECADE for place in range(1 - DECADES * BINS_PER_DECADE, 1)]
EDGES = np.array([0.0, *(float(f"{10**exponent:.2e}") for exponent in _EXPONENTS)])


def write_densities_table(
    study: str, tables: Mapping[str, Path], corpora: Mapping[str, Sequence[str]], table: Path
) -> None:
    """Write results/<study>_densities.csv from the latents.parquet of each SAE (SAE id → file), on its `corpora`.

    Columns: docs/metrics.md, section 6. Raises EvaluationError when a file is of another SAE.
    """
    write_csv(table, frame_of(row for sae, path in tables.items() for row in _rows(study, sae, path, corpora[sae])))


def histogram(n_firings: np.ndarray, n_tokens: int) -> tuple[int, np.ndarray]:
    """Number of latents that never fire, and of those in each bin by their share of `n_tokens`."""
    density = n_firings[n_firings > 0] / n_tokens
    # The last bin has its upper edge too: a latent may fire on every token.
    places = np.minimum(np.searchsorted(EDGES, density, side="right") - 1, len(EDGES) - 2)
    return int((n_firings == 0).sum()), np.bincount(places, minlength=len(EDGES) - 1)


def _rows(study: str, sae_id: str, path: Path, corpora: Sequence[str]) -> Iterator[dict[str, Any]]:
    latents = read_arrow(path)
    require_sae(path, (latents.schema.metadata or {}).get(b"sae_id", b"").decode(), sae_id)
    names = ["dictionary", "corpus", "role", "n_tokens", "n_firings"]
    frame = pa.Table.to_pandas(latents.select(names))
    for (corpus, dictionary), rows in frame.groupby(["corpus", "dictionary"], sort=False):
        if corpus not in corpora:
            continue
        n_tokens = int(rows.n_tokens.iloc[0])
        silent, counts = histogram(rows.n_firings.to_numpy(), n_tokens)
        who = identity(study, sae_id) | {"corpus": corpus, "role": rows.role.iloc[0], "dictionary": dictionary}
        for low, high, number in [(0.0, 0.0, silent), *zip(EDGES[:-1], EDGES[1:], counts, strict=True)]:
            found = {"low": low, "high": high, "n_latents": int(number), "share": number / len(rows)}
            yield who | {"n_tokens": n_tokens} | found
