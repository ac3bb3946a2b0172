"""Measure how often labels repeat, and how often they come back with other examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from atlas.autointerp.tools import Embed

# Labels whose sentence embeddings are closer than this say the same.
SAME_COSINE = 0.8
# Latents that share a label: below the first decoder cosine they are different, and the labelling is at fault; above
# the second they are copies, and the label is right.
DIFFERENT_BELOW, COPIES_ABOVE = 0.3, 0.7
_CHUNK = 1024


def repetition(
    labels: Mapping[int, str], W_dec: Float[np.ndarray, "n_latents d_model"], embed: Embed | None
) -> dict[str, Any]:
    """Return how often the labels (latent → label) of a dictionary repeat, word by word and by meaning.

    `effective_labels` is exp(entropy) of the sizes of groups of labels that say the same, joined through chains.
    Without a sentence encoder (or labels) what needs one is None.
    """
    latents, texts = list(labels), list(labels.values())
    result: dict[str, Any] = {"n_labels": len(texts), **_exact(texts)}
    names = ("repeated_semantic", "effective_labels", "effective_share", "same_label_pairs")
    names += ("same_label_different_share", "same_label_copies_share")
    if embed is None or len(texts) < 2:
        return result | dict.fromkeys(names)
    first, second = _same_pairs(embed(texts))
    group = connected_components(coo_array((np.ones(len(first)), (first, second)), (len(texts),) * 2), directed=False)
    shares = np.bincount(group[1]) / len(texts)
    effective = float(np.exp(-(shares * np.log(shares)).sum()))
    cosine = _cosines(W_dec, np.array(latents)[first], np.array(latents)[second])
    pairs = {
        "same_label_pairs": len(first),
        "same_label_different_share": float((cosine < DIFFERENT_BELOW).mean()) if len(first) else None,
        "same_label_copies_share": float((cosine > COPIES_ABOVE).mean()) if len(first) else None,
    }
    repeated = len(np.unique(np.concatenate([first, second]))) / len(texts)
    own = {"repeated_semantic": repeated, "effective_labels": effective, "effective_share": effective / len(texts)}
    return result | own | pairs


def seed_stability(labels: Sequence[Mapping[int, str]], embed: Embed | None) -> dict[str, float | None]:
    """Labels of the same latents from different examples: mean cosine, that of different latents', equal words.

    `labels` has one mapping (latent → label) per seed. None with one seed, or without a sentence encoder.
    """
    names = ("stability", "stability_null", "stability_exact")
    shared = sorted(set.intersection(*(set(own) for own in labels))) if labels else []
    if len(labels) < 2 or len(shared) < 2:
        return dict.fromkeys(names)
    pairs = [(a, b) for b in range(len(labels)) for a in range(b)]
    exact = float(np.mean([[labels[a][i] == labels[b][i] for i in shared] for a, b in pairs]))
    if embed is None:
        return dict.fromkeys(names) | {"stability_exact": exact}
    vectors = [embed([own[latent] for latent in shared]).astype(np.float64) for own in labels]
    same = float(np.mean([(vectors[a] * vectors[b]).sum(1).mean() for a, b in pairs]))
    n = len(shared)
    # Mean over all pairs of different latents: the whole sum less the diagonal.
    whole = [vectors[a].sum(0) @ vectors[b].sum(0) - (vectors[a] * vectors[b]).sum() for a, b in pairs]
    return {"stability": same, "stability_null": float(np.mean(whole) / (n * (n - 1))), "stability_exact": exact}


def _exact(texts: Sequence[str]) -> dict[str, Any]:
    if not texts:
        return {"repeated_exact": None, "most_common_label": None, "most_common_share": None}
    counts = Counter(texts)
    common, count = min(counts.items(), key=lambda each: (-each[1], each[0]))
    repeated = sum(number for number in counts.values() if number > 1)
    shares = {"repeated_exact": repeated / len(texts), "most_common_share": count / len(texts)}
    return shares | {"most_common_label": common}


def _same_pairs(vectors: Float[np.ndarray, "labels width"]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of labels, each once, whose cosine is above SAME_COSINE."""
    found = []
    for start in range(0, len(vectors), _CHUNK):
        rows, columns = np.nonzero(vectors[start : start + _CHUNK] @ vectors.T > SAME_COSINE)
        rows = rows + start
        found.append((rows[rows < columns], columns[rows < columns]))
    first, second = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second


def _cosines(W_dec: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    unit = W_dec / np.maximum(np.linalg.norm(W_dec, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return np.einsum("pd,pd->p", unit[first], unit[second])
