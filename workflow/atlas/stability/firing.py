"""Compare firings of partners on the same rows, from the codes of SAEs on one corpus."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.codes.store import Codes
from atlas.statistics.clusters import Groups
from atlas.statistics.ranks import rank_correlation

_SPLITS = 8


@dataclass(frozen=True)
class Firing:
    """Latents that fire on each counted row of a corpus, and the document group of each counted row."""

    fires: scipy.sparse.csc_array  # (counted rows, n_latents), 1 where a latent fires
    group: Int[np.ndarray, " rows"]

    @classmethod
    def of(cls, codes: Codes) -> "Firing":
        """Read all entries of a codes file; values are not kept."""
        place = np.cumsum(codes.counted) - 1
        rows, counts = [], []
        for block in codes.blocks():
            block = block.only(codes.counted[block.row])
            rows.append(place[block.row])
            counts.append(np.diff(block.indptr))
        row = np.concatenate(rows) if rows else np.empty(0, np.int64)
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        document = codes.document[codes.counted]
        shape = (len(document), codes.n_latents)
        fires = scipy.sparse.csc_array((np.ones(len(row), np.float32), row, indptr), shape=shape)
        return cls(fires, Groups.of(document).index(document))

    @property
    def n_rows(self) -> int:
        """Number of counted rows."""
        return self.fires.shape[0]

    @property
    def counts(self) -> Int[np.ndarray, " n_latents"]:
        """Counted rows on which each latent fires."""
        return np.diff(self.fires.indptr)

    def halves_spearman(self, latents: Bool[np.ndarray, " n_latents"]) -> float | None:
        """Spearman correlation of firing counts between two halves of the documents, mean over random halvings.

        Over the latents of the mask. None with fewer than two documents, or if a half has no variety of counts.
        """
        n_groups = int(self.group.max(initial=-1)) + 1
        if n_groups < 2:
            return None
        values = []
        for split in range(_SPLITS):
            order = np.random.Generator(np.random.PCG64(split)).permutation(n_groups)
            first = np.isin(self.group, order[: n_groups // 2]).astype(np.float32)
            counts = first @ self.fires
            values.append(rank_correlation(counts[latents], (self.counts - counts)[latents]))
        return None if None in values else float(np.mean(values))


def firing_jaccard(
    first: Firing, second: Firing, latents: Int[np.ndarray, " pairs"], partners: Int[np.ndarray, " pairs"]
) -> Float[np.ndarray, " pairs"]:
    """(rows where both fire) / (rows where either fires) of each latent and its partner; NaN when neither ever does."""
    both = np.asarray(first.fires[:, latents].multiply(second.fires[:, partners]).sum(axis=0)).ravel()
    either = first.counts[latents] + second.counts[partners] - both
    return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)
