"""Measure how batches are mixed: the number of documents behind a batch's rows, against uniform sampling.

Batches are made of blocks of consecutive rows of shards that were shuffled when they were written. Were that shuffle
missing or too narrow, a batch would hold a few documents, and its gradient would be that of those.
"""

from dataclasses import dataclass

import numpy as np

from atlas.activations.stream import BatchStream

# Batches looked at, spread over all steps: only document numbers are read, which are in memory.
BATCHES = 64


@dataclass(frozen=True)
class Mixing:
    """Effective number of documents of a batch, 1 / Σ p² over the documents' shares p of its rows.

    `effective_documents` is what batches have, `uniform_documents` what as many rows of each corpus would have if they
    were drawn uniformly, without repetition, from all trainable rows; where batches come from windows, from all counted
    rows, in any window. Of both, Σ p² is averaged over `batches` batches.
    """

    effective_documents: float
    uniform_documents: float
    batches: int


def measure_mixing(stream: BatchStream, batches: int = BATCHES) -> Mixing:
    """The mixing of a stream's batches; reads no activations."""
    pairs = {name: _pair_probability(documents) for name, documents in stream.trainable_documents().items()}
    found, uniform = 0.0, 0.0
    steps = looked_at(stream.steps, batches)
    for step in steps:
        found += stream.pairs(step)
        for name, n_rows in stream.rows_of(step).items():
            uniform += n_rows + n_rows * (n_rows - 1) * pairs[name]
    squares = stream.batch_size**2 * len(steps)
    return Mixing(round(float(squares / found), 3), round(float(squares / uniform), 3), len(steps))


def looked_at(steps: int, batches: int = BATCHES) -> list[int]:
    """The steps whose batches are measured, spread over all."""
    return np.unique(np.linspace(0, steps - 1, batches).astype(int)).tolist()


def _pair_probability(documents: np.ndarray) -> float:
    """Probability that two rows, drawn without repetition, are of one document."""
    counts = np.unique(documents, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1)).sum() / max(1, len(documents) * (len(documents) - 1)))
