"""Rows of a planted model: which features fire, how strongly, and their sum. Any part can be drawn again alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from scipy.special import ndtri

from atlas.config.planted import PlantedSource
from atlas.planted.truth import Truth

# Rows that are drawn from one generator. Part of what a seed means.
CHUNK_ROWS = 4096
SPLITS = {"train": 1, "eval": 2}


@dataclass(frozen=True)
class Sampler:
    """Draws one split of one corpus: chunk i depends on the truth, both seeds, the split and i alone."""

    truth: Truth
    source: PlantedSource
    seed: int
    split: str

    def codes(self, start: int, stop: int) -> Iterator[tuple[int, csr_array]]:
        """Rows `start` to `stop` in parts: the first row's number, and magnitudes (rows, features), 0 where silent."""
        for chunk in range(start // CHUNK_ROWS, -(-stop // CHUNK_ROWS)):
            first = chunk * CHUNK_ROWS
            low, high = max(start - first, 0), min(stop - first, CHUNK_ROWS)
            yield first + low, self._chunk(chunk)[low:high]

    def rows(self, codes: csr_array) -> Float[np.ndarray, "rows d_model"]:
        """The activations that codes make, float32."""
        return np.ascontiguousarray(codes @ self.truth.directions, dtype=np.float32)

    def _chunk(self, chunk: int) -> csr_array:
        key = [self.source.seed, self.seed, SPLITS[self.split], chunk]
        generator = np.random.Generator(np.random.PCG64(key))
        fires = self._fires(generator)
        row, feature = fires.nonzero()
        strength = self._strengths(generator, feature)
        if self.source.hierarchy is not None and self.source.hierarchy.scaled:
            self._scale(row, feature, strength)
        return csr_array((strength.astype(np.float32), (row, feature)), shape=fires.shape)

    def _fires(self, generator: np.random.Generator) -> Bool[np.ndarray, "rows features"]:
        truth = self.truth
        shape = (CHUNK_ROWS, truth.n_features)
        fires = np.zeros(shape, dtype=bool)
        free = truth.parent < 0
        if truth.loadings.shape[1]:
            loadings = truth.loadings[free]
            own = np.sqrt(1.0 - np.square(loadings).sum(1))
            factors = generator.standard_normal((CHUNK_ROWS, loadings.shape[1]))
            normal = factors @ loadings.T + own * generator.standard_normal((CHUNK_ROWS, len(loadings)))
            fires[:, free] = normal < ndtri(truth.frequency[free])
        else:
            fires[:, free] = generator.random((CHUNK_ROWS, int(free.sum()))) < truth.frequency[free]
        # One number decides among siblings, so that at most one fires, each exactly as often as it should.
        numbers = generator.random((CHUNK_ROWS, len(self._families)))
        for place, (parent, children) in enumerate(self._families):
            ends = np.cumsum(truth.given_parent[children])
            chosen = np.searchsorted(ends, numbers[:, place], side="right")
            rows = np.flatnonzero(fires[:, parent] & (chosen < len(children)))
            fires[rows, children[chosen[rows]]] = True
        return fires

    @cached_property
    def _families(self) -> list:
        return self.truth.families()

    def _strengths(self, generator: np.random.Generator, feature: np.ndarray) -> np.ndarray:
        noise, mean = generator.standard_normal(len(feature)), self.truth.mean[feature]
        if self.source.magnitude.law == "log_normal":
            return mean * np.exp(self.source.magnitude.spread * noise)
        # Folded at 0: a feature that fires is above it. The clip is for a number that is 0 to the bit.
        return np.maximum(np.abs(mean + self.source.magnitude.spread * noise), 1e-6)

    def _scale(self, row: np.ndarray, feature: np.ndarray, strength: np.ndarray) -> None:
        """Multiply children by their parent's strength over its mean, parents first."""
        n_features = self.truth.n_features
        place = np.full(CHUNK_ROWS * n_features, -1, dtype=np.int64)
        place[row * n_features + feature] = np.arange(len(feature))
        parent = self.truth.parent[feature]
        # A child's number is above its parent's; nonzero() gives features of a row in order, but rows come first.
        assert self.source.hierarchy is not None  # else nothing is scaled
        for level in range(self.source.hierarchy.depth):
            mine = np.flatnonzero(self._level[feature] == level + 1)
            above = place[row[mine] * n_features + parent[mine]]
            strength[mine] *= strength[above] / self.truth.mean[parent[mine]]

    @cached_property
    def _level(self) -> np.ndarray:
        level = np.zeros(self.truth.n_features, dtype=np.int64)
        for child in np.flatnonzero(self.truth.parent >= 0):
            level[child] = level[self.truth.parent[child]] + 1
        return level
