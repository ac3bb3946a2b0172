"""On what a model is judged: contexts of a corpus, the units of its objective in them, and which are masked."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from atlas.activations.store import Shard
from atlas.errors import EvaluationError
from atlas.models.load import LoadedModel
from atlas.models.objectives import TOKEN_OBJECTIVES, compare, loss_mask, summarise_clean

# Of a masked language model: the share of counted tokens that is hidden (as in its training, arXiv 1810.04805), and
# the seed of which ones. Fixed, so that every SAE ever judged on a corpus met the same holes.
MASKED_SHARE, MASKING_SEED = 0.15, 0

# What `loss` is for each objective; for the last two it is a distance from the clean output, 0 when clean.
LOSS_KINDS = {
    "causal_lm": "cross-entropy per token, nats",
    "masked_lm": f"cross-entropy per masked token ({MASKED_SHARE:.0%} of tokens, seed {MASKING_SEED}), nats",
    "sequence_classification": "KL to the clean prediction per context, nats",
    "embedding": "1 - cosine to the clean embedding per context",
}


@dataclass(frozen=True)
class ContextBatch:
    """Consecutive whole contexts of one eval shard; `first` counts contexts from the corpus' start."""

    shard: Shard
    first: int
    row: int
    n_contexts: int

    @property
    def tokens(self) -> Int[Tensor, "contexts position"]:
        """Token ids."""
        return torch.from_numpy(self._column(self.shard.tokens).astype(np.int64))

    @property
    def counted(self) -> Bool[Tensor, "contexts position"]:
        """False for special tokens and padding."""
        return torch.from_numpy(self._column(self.shard.counted))

    @property
    def document(self) -> np.ndarray:
        """Document index of each token, (contexts, position)."""
        return self._column(self.shard.document)

    def rows(self, hook: str) -> Float[Tensor, "contexts position d_model"]:
        """Stored activations, float32."""
        length = self.shard.context_length
        rows = self.shard.read_rows(hook, self.row, self.row + self.n_contexts * length)
        return rows.float().view(self.n_contexts, length, -1)

    def _column(self, values: np.ndarray) -> np.ndarray:
        length = self.shard.context_length
        return values[self.row : self.row + self.n_contexts * length].reshape(self.n_contexts, length)


def context_batches(shards: Sequence[Shard], n_contexts: int, batch_contexts: int) -> Iterator[ContextBatch]:
    """The first `n_contexts` contexts of a corpus, at most `batch_contexts` at a time."""
    first = 0
    for shard in shards:
        available = min(shard.n_rows // shard.context_length, n_contexts - first)
        for start in range(0, available, batch_contexts):
            size = min(batch_contexts, available - start)
            yield ContextBatch(shard, first + start, start * shard.context_length, size)
        first += available


@dataclass(frozen=True)
class Task:
    """Question to a model about a batch of contexts.

    `inputs`: what it reads. `mask`, (contexts, units): which units count; units are positions, or one per context.
    `targets`: the tokens that the counted units ask for, None where no token is predicted. `counted`, (contexts,
    position): where activations are replaced. `document`, (contexts, units): the clusters of intervals.
    """

    inputs: Int[Tensor, "contexts position"]
    mask: Bool[Tensor, "contexts units"]
    targets: Int[Tensor, " counted_units"] | None
    counted: Bool[Tensor, "contexts position"]
    document: np.ndarray

    @classmethod
    def of(cls, loaded: LoadedModel, batch: ContextBatch) -> "Task":
        """The task that the model's objective makes of a batch; tensors are on the model's device."""
        ids, counted = batch.tokens.to(loaded.device), batch.counted.to(loaded.device)
        if loaded.objective not in TOKEN_OBJECTIVES:
            document = batch.first + np.arange(batch.n_contexts)[:, None]
            return cls(ids, counted.any(dim=1, keepdim=True), None, counted, document)
        if loaded.objective == "causal_lm":
            mask = loss_mask(loaded, ids) & counted
            return cls(ids, mask, ids[mask], counted, batch.document)
        fingerprint = batch.shard.identity["corpus_fingerprint"]
        mask = masked_positions(fingerprint, batch.first, batch.counted).to(loaded.device)
        return cls(ids.masked_fill(mask, _mask_token(loaded)), mask, ids[mask], counted, batch.document)

    def summarise(self, loaded: LoadedModel, hidden: Float[Tensor, "contexts position d_model"]) -> dict[str, Tensor]:
        """Return what `losses` needs of the clean final state; a row per counted unit."""
        return summarise_clean(loaded, self._judged(loaded, hidden))

    def losses(
        self, loaded: LoadedModel, hidden: Float[Tensor, "contexts position d_model"], clean: dict[str, Tensor]
    ) -> tuple[Float[Tensor, " counted_units"], Float[Tensor, " counted_units"] | None]:
        """Loss and KL from the clean prediction (None for an embedding) of the counted units."""
        return compare(loaded, self._judged(loaded, hidden), self.targets, clean)

    def spread(self, values: Tensor) -> np.ndarray:
        """Values of the counted units as (contexts, units), 0 elsewhere."""
        result = torch.zeros(self.mask.shape, dtype=values.dtype, device=values.device)
        result[self.mask] = values
        return result.cpu().numpy()

    def _judged(self, loaded: LoadedModel, hidden: Tensor) -> Tensor:
        if loaded.objective == "causal_lm":  # token p is predicted at position p - 1
            return hidden[:, :-1][self.mask[:, 1:]]
        return hidden[self.mask] if loaded.objective == "masked_lm" else hidden[self.mask[:, 0]]


def masked_positions(
    fingerprint: str, first: int, counted: Bool[Tensor, "contexts position"]
) -> Bool[Tensor, "contexts position"]:
    """Return which positions of contexts `first`, first + 1, … of a corpus are masked: `MASKED_SHARE` of the counted
    ones.

    At least one of each context that has any. Depends on the corpus' fingerprint and the context's number alone,
    hence not on batches.
    """
    mask = torch.zeros_like(counted)
    for row in range(len(counted)):
        places = counted[row].nonzero()[:, 0].numpy()
        digest = hashlib.sha256(f"{MASKING_SEED}/{fingerprint}/{first + row}".encode()).digest()
        generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))
        size = min(len(places), max(1, round(MASKED_SHARE * len(places))))
        mask[row, generator.choice(places, size, replace=False)] = True
    return mask


def _mask_token(loaded: LoadedModel) -> int:
    token = loaded.tokenizer.mask_token_id
    if token is None:
        raise EvaluationError(
            f"{loaded.identity['name']}: its tokenizer has no mask token, which objective 'masked_lm' needs; "
            "give the model another objective"
        )
    return token
