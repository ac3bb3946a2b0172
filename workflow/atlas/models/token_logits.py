"""Cross-entropy and KL from a model's own logits, a few positions and a few thousand tokens at a time.

Logits are rounded to the model's number format as the model rounds them, and bent where it bends them (Gemma 2).
Everything after them is float32. `atlas.models.predictions` derives the same numbers without logits.

A chunk is a few MB and stays in a core's cache, so memory does not depend on the vocabulary. Whole rows of logits are
not held: between calls the C library kept them, no later request fitted into them, and they added up.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from atlas.devices import product_dtype
from atlas.models.adapters import bend_logits
from atlas.models.load import LoadedModel
from atlas.models.predictions import features, vocabulary_chunks

# Whole rows of logits where they cannot be cut: 16 MiB of float32 at a time.
_ROW_ELEMENTS = 2**22


def rows_at_once(loaded: LoadedModel) -> int:
    """Return how many whole rows of logits to hold at a time.

    What is kept of them must have its memory before the first: the C library joins freed tensors only where nothing
    that is kept lies between them.
    """
    return max(1, _ROW_ELEMENTS // loaded.identity["vocabulary_size"])


@torch.inference_mode()
def cross_entropy(
    loaded: LoadedModel, hidden: Float[Tensor, "rows d_model"], targets: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """Cross-entropy of `targets` in nats, float32; `hidden` is the final state that predicts each."""
    loss = _CrossEntropy(targets)
    for rows, tokens, (logits,) in _chunks(loaded, hidden):
        loss.add(rows, tokens, logits)
    return loss.value


@torch.inference_mode()
def kl_of_tokens(
    loaded: LoadedModel, clean: Float[Tensor, "rows d_model"], other: Float[Tensor, "rows d_model"]
) -> Float[Tensor, " rows"]:
    """KL(clean ‖ other) of the predictions in nats, float32; exactly 0 where both states are equal."""
    distance = _Distance(clean)
    for rows, _, logits in _chunks(loaded, clean, other):
        distance.add(rows, *logits)
    return distance.value


@torch.inference_mode()
def compare_logits(
    loaded: LoadedModel,
    clean: Float[Tensor, "rows d_model"],
    other: Float[Tensor, "rows d_model"],
    targets: Int[Tensor, " rows"],
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """`cross_entropy` of the other state, and `kl_of_tokens`, from one pass over the vocabulary."""
    loss, distance = _CrossEntropy(targets), _Distance(clean)
    for rows, tokens, (clean_logits, other_logits) in _chunks(loaded, clean, other):
        loss.add(rows, tokens, other_logits)
        distance.add(rows, clean_logits, other_logits)
    return loss.value, distance.value


class _LogSum:
    """Σ exp(logit) of each row over the chunks seen, as total · exp(largest)."""

    def __init__(self, n_rows: int, device: torch.device):
        self.largest = torch.full((n_rows,), -torch.inf, device=device)
        self.total = torch.zeros(n_rows, device=device)

    def add(self, rows: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Terms of this chunk, and the factor that makes earlier ones comparable with them."""
        before = self.largest[rows]
        largest = torch.maximum(before, logits.amax(1))
        factor, terms = (before - largest).exp(), (logits - largest[:, None]).exp_()
        self.total[rows] = self.total[rows] * factor + terms.sum(1)
        self.largest[rows] = largest
        return terms, factor


class _CrossEntropy:
    def __init__(self, targets: Tensor):
        self._targets = targets
        self._sum = _LogSum(len(targets), targets.device)
        self._at_target = torch.zeros(len(targets), device=targets.device)

    def add(self, rows: slice, tokens: slice, logits: Tensor) -> None:
        self._sum.add(rows, logits)
        place = self._targets[rows] - tokens.start
        inside = (place >= 0) & (place < logits.shape[1])
        found = logits.gather(1, place.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        self._at_target[rows] = torch.where(inside, found, self._at_target[rows])

    @property
    def value(self) -> Tensor:
        return self._sum.largest - self._at_target + self._sum.total.log()


class _Distance:
    """KL(p ‖ q) = Σ p (logit_p − logit_q) − lse_p + lse_q."""

    def __init__(self, clean: Tensor):
        self._clean, self._other = (_LogSum(len(clean), clean.device) for _ in range(2))
        self._gap = torch.zeros(len(clean), device=clean.device)

    def add(self, rows: slice, clean: Tensor, other: Tensor) -> None:
        terms, factor = self._clean.add(rows, clean)
        self._other.add(rows, other)
        self._gap[rows] = self._gap[rows] * factor + terms.mul_(clean - other).sum(1)

    @property
    def value(self) -> Tensor:
        clean, other = self._clean, self._other
        distance = self._gap / clean.total - (clean.largest - other.largest) - (clean.total.log() - other.total.log())
        return distance.clamp_(min=0)  # rounding can leave −1e-7


def _chunks(loaded: LoadedModel, *hidden: Tensor) -> Iterator[tuple[slice, slice, list[Tensor]]]:
    """Slices of rows and of the vocabulary, and the logits there of each of `hidden`, float32."""
    projection = loaded.model.get_output_embeddings()
    factors = [features(loaded, each).to(product_dtype(loaded.dtype, each.device)) for each in hidden]
    for rows, tokens, weight in vocabulary_chunks(projection, factors[0]):
        bias = None if projection.bias is None else projection.bias[tokens].to(weight.dtype)
        products = [functional.linear(each[rows], weight, bias).to(loaded.dtype) for each in factors]
        yield rows, tokens, [bend_logits(loaded.model, each).float() for each in products]
