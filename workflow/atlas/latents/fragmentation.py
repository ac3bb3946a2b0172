"""Count latents that are pieces of one: clusters that fire together or point one way. docs/metrics.md, section 6."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from atlas.codes.store import Codes
from atlas.latents.activity import MIN_FIRINGS
from atlas.latents.text import CorpusText

# Correlation of firing and cosine of decoder rows above which two latents are pieces of one.
FIRING_CORRELATION, DECODER_COSINE = 0.5, 0.7
# Counted rows on which firing together is looked at: pairs cost L0² per row.
MAX_ROWS = 2**18
_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Fragmentation:
    """`cluster` of each latent (−1: alone, or silent), numbered by their lowest latent."""

    cluster: Int[np.ndarray, " n_latents"]
    n_alive: int

    @property
    def sizes(self) -> Int[np.ndarray, " clusters"]:
        """Latents of each cluster."""
        return np.bincount(self.cluster[self.cluster >= 0])

    def summary(self) -> dict[str, float | int | None]:
        """Clusters and surplus latents per alive latent, the share of alive latents in clusters, the largest one."""
        sizes, alive = self.sizes, self.n_alive
        return {
            "clusters_per_alive": len(sizes) / alive if alive else None,
            "surplus_per_alive": float((sizes - 1).sum() / alive) if alive else None,
            "fragmented_share": float(sizes.sum() / alive) if alive else None,
            "largest_cluster": int(sizes.max()) if len(sizes) else 0,
        }


def measure_fragmentation(
    W_dec: Float[Tensor, "n_latents d_target"], codes: Codes, text: CorpusText, n_firings: Int[np.ndarray, " n_latents"]
) -> Fragmentation:
    """Clusters of the alive latents on a corpus: joined by decoder or by firing, and by chains of such pairs."""
    alive = n_firings > 0
    labels = np.arange(len(alive))
    unit = torch.nn.functional.normalize(W_dec.float(), dim=1)
    for first in range(0, len(alive), _BLOCK):
        near = (unit[first : first + _BLOCK] @ unit.T > DECODER_COSINE).nonzero().cpu().numpy()
        labels = _join(labels, near[:, 0] + first, near[:, 1], alive)
    for one, other in _firing_pairs(codes, text, alive):
        labels = _join(labels, one, other, alive)
    return Fragmentation(_numbered(labels, alive), int(alive.sum()))


def _firing_pairs(codes: Codes, text: CorpusText, alive: Bool[np.ndarray, " n_latents"]):
    """Pairs of latents whose firing correlates above the limit, a block of latents at a time."""
    last = int(np.searchsorted(np.cumsum(text.counted), MAX_ROWS)) + 1
    fired = _firing_matrix(codes, text, min(last, codes.n_rows))
    n_rows, counts = int(text.counted[:last].sum()), np.asarray(fired.sum(1)).ravel()
    enough = alive & (counts >= MIN_FIRINGS)
    transposed = fired.T.tocsr()
    for first in range(0, len(alive), _BLOCK):
        both = (fired[first : first + _BLOCK] @ transposed).tocoo()
        one, other = both.row + first, both.col
        a, b = counts[one], counts[other]
        spread = np.sqrt(a * (n_rows - a) * b * (n_rows - b))
        together = n_rows * both.data - a * b > FIRING_CORRELATION * spread
        kept = together & enough[one] & enough[other] & (one != other)
        yield one[kept], other[kept]


def _firing_matrix(codes: Codes, text: CorpusText, n_rows: int) -> csr_matrix:
    """(n_latents, rows), 1.0 where a latent fires on a counted row."""
    parts = [block.only(text.counted[block.row] & (block.row < n_rows)) for block in codes.blocks()]
    latent = np.concatenate([part.first + part.latent for part in parts])
    row = np.concatenate([part.row for part in parts])
    return coo_matrix((np.ones(len(row)), (latent, row)), (codes.n_latents, n_rows)).tocsr()


def _join(labels: np.ndarray, one: np.ndarray, other: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Labels after joining pairs of alive latents; the label of a cluster is that of its lowest latent."""
    both = alive[one] & alive[other]
    one, other = labels[one[both]], labels[other[both]]
    if not len(one):
        return labels
    size = len(labels)
    _, component = connected_components(coo_matrix((np.ones(len(one)), (one, other)), (size, size)), directed=False)
    _, lowest = np.unique(component, return_index=True)
    return lowest[component][labels]


def _numbered(labels: np.ndarray, alive: np.ndarray) -> np.ndarray:
    sizes = np.bincount(labels[alive], minlength=len(labels))
    numbers = np.cumsum(sizes > 1) - 1
    return np.where(alive & (sizes[labels] > 1), numbers[labels], -1)
