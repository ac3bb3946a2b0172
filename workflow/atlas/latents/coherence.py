"""Measure coherence of a latent's top contexts: their mean pairwise cosine, against random contexts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from jaxtyping import Integer as Int

from atlas.latents.contexts import TopContexts
from atlas.latents.embedded_windows import EmbeddedWindows
from atlas.latents.text import CorpusText, ratio
from atlas.statistics.draws import document_draws, draws_interval

# Random contexts that the null draws its tuples from, and the number of tuples.
NULL_CONTEXTS, NULL_TUPLES = 2000, 1000
# A latent whose contexts lie this many standard deviations above random tuples is called coherent.
COHERENT_Z = 3.0
_CHUNK_LATENTS = 256


@dataclass(frozen=True, eq=False)
class CoherenceNull:
    """Mean and standard deviation of the mean pairwise cosine of m random contexts, for m = 0 to the most asked for."""

    mean: Float[np.ndarray, " m"]
    sd: Float[np.ndarray, " m"]


@dataclass(frozen=True, eq=False)
class Coherence:
    """Mean pairwise cosine of each latent's top contexts (NaN with fewer than two), its null and z."""

    value: Float[np.ndarray, " n_latents"]
    null_mean: Float[np.ndarray, " n_latents"]
    null_sd: Float[np.ndarray, " n_latents"]
    z: Float[np.ndarray, " n_latents"]
    mean_interval: list[float] | None


def null_rows(text: CorpusText, seed: int = 0) -> Int[np.ndarray, " contexts"]:
    """Random counted rows, from which the null draws its tuples."""
    counted = np.flatnonzero(text.counted)
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.sort(generator.choice(counted, min(NULL_CONTEXTS, len(counted)), replace=False))


def random_tuples(text: CorpusText, rows: np.ndarray, size: int, seed: int = 0) -> Int[np.ndarray, "tuples size"]:
    """Tuples of rows of different documents, drawn as rows are: −1 where there are fewer documents than `size`."""
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    documents, member, n_rows = np.unique(text.document[rows], return_inverse=True, return_counts=True)
    # Successive draws without replacement, in proportion to a document's rows: the smallest of exponential times.
    times = generator.standard_exponential((NULL_TUPLES, len(documents))) / n_rows
    chosen = np.argsort(times, axis=1)[:, :size]
    by_document, begins = np.argsort(member, kind="stable"), np.concatenate([[0], np.cumsum(n_rows)[:-1]])
    offset = (generator.random(chosen.shape) * n_rows[chosen]).astype(np.int64)
    drawn = rows[by_document[begins[chosen] + offset]]
    return np.pad(drawn, ((0, 0), (0, size - drawn.shape[1])), constant_values=-1)


def coherence_null(windows: EmbeddedWindows, tuples: Int[np.ndarray, "tuples size"]) -> CoherenceNull:
    """For each m the first m contexts of every tuple."""
    size = tuples.shape[1]
    mean, sd = np.full(size + 1, np.nan), np.full(size + 1, np.nan)
    for m in range(2, size + 1):
        whole = tuples[(tuples[:, :m] >= 0).all(1), :m]
        if len(whole) > 1:
            values = mean_cosine(windows.of(whole), np.ones(whole.shape))
            mean[m], sd[m] = values.mean(), values.std(ddof=1)
    return CoherenceNull(mean, sd)


def mean_cosine(
    vectors: Float[np.ndarray, "*many contexts width"], weights: Shaped[np.ndarray, "*many contexts"]
) -> Float[np.ndarray, "*many"]:
    """Mean cosine over pairs of different contexts, each weighted by the product of its weights; NaN without any."""
    weights = weights.astype(np.float64)
    total = (vectors * weights[..., None]).sum(-2)
    own = (weights**2 * (vectors.astype(np.float64) ** 2).sum(-1)).sum(-1)
    pairs = weights.sum(-1) ** 2 - (weights**2).sum(-1)
    return ratio((total**2).sum(-1) - own, pairs)


def measure_coherence(
    contexts: TopContexts, text: CorpusText, windows: EmbeddedWindows, null: CoherenceNull, samples: int
) -> Coherence:
    """Coherence of every latent; the interval of their mean holds the contexts and draws their documents anew."""
    present = contexts.row >= 0
    parts, sums, counts = [], np.zeros(samples), np.zeros(samples)
    draws = document_draws(text.groups.count, samples)
    for start in range(0, len(present), _CHUNK_LATENTS):
        rows, there = contexts.row[start : start + _CHUNK_LATENTS], present[start : start + _CHUNK_LATENTS]
        vectors = windows.of(rows)
        parts.append(mean_cosine(vectors, there))
        drawn = _drawn(vectors, there, draws[text.group[np.maximum(rows, 0)]])
        sums += np.nansum(drawn, axis=0)
        counts += (~np.isnan(drawn)).sum(0)
    value, m = np.concatenate(parts), contexts.n_contexts
    mean, sd = null.mean[m], null.sd[m]
    z = ratio(value - mean, np.nan_to_num(sd))
    known = value[~np.isnan(value)]
    whole = float(known.mean()) if len(known) else np.nan
    return Coherence(value, mean, sd, z, draws_interval(whole, ratio(sums, counts), text.groups.count, (-1.0, 1.0)))


def _drawn(
    vectors: Float[np.ndarray, "latents contexts width"],
    present: np.ndarray,
    draws: Float[np.ndarray, "latents contexts samples"],
) -> Float[np.ndarray, "latents samples"]:
    """Coherence when each context counts as often as its document was drawn."""
    weights = draws * present[..., None]
    cosines = vectors @ vectors.transpose(0, 2, 1)
    n = cosines.shape[1]
    cosines[:, np.arange(n), np.arange(n)] = 0
    above = np.einsum("las,las->ls", weights, cosines @ weights)
    return ratio(above, weights.sum(1) ** 2 - (weights**2).sum(1))
