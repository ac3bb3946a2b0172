"""Split a batch that does not fit into memory: gradients of micro-batches add up to the batch's."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError

log = logging.getLogger(__name__)

T = TypeVar("T")

# Architectures that treat each row by itself: their loss is a mean over rows, whichever micro-batch these are in. The
# others select within the batch, or punish a mean of the batch with more than a factor.
_ROW_BY_ROW = ("topk", "relu", "gated")


@dataclass
class MicroBatch:
    """Number of rows that pass at once, and the steps at which it was halved: part of a run's history."""

    rows: int
    halvings: list[dict[str, int]] = field(default_factory=list)

    def halve(self, step: int, recipe: Recipe) -> None:
        """Half as many rows from now on. Raises TrainingError where that is impossible, or is not allowed."""
        if recipe.parity:
            raise TrainingError(
                f"step {step}: out of memory with a batch of {self.rows} rows, and parity with {recipe.parity} allows "
                "no micro-batches; use a machine with more memory, or leave out the recipe's parity"
            )
        if self.rows == 1:
            raise TrainingError(
                f"step {step}: out of memory even with one row at a time; the weights of {recipe.n_latents:,} latents, "
                "their gradients and moments alone are too large: lower n_latents or use a machine with more memory"
            )
        self.rows = -(-self.rows // 2)
        self.halvings.append({"step": step, "rows": self.rows})
        log.warning("step %d: out of memory; from now on %d rows at a time", step, self.rows)

    def warnings(self, recipe: Recipe) -> list[str]:
        """Return what the run card has to say about it."""
        if not self.halvings:
            return []
        what = "gradients add up to those of the batch"
        if recipe.architecture not in _ROW_BY_ROW:
            what += f", but what {recipe.architecture} takes from a whole batch it took from each micro-batch"
        return [
            f"out_of_memory: a batch of {recipe.batch_size:,} rows did not fit; since step "
            f"{self.halvings[-1]['step']:,} {self.rows:,} rows pass at a time (halvings: {len(self.halvings)}); {what}"
        ]


def attempt(call: Callable[[], T]) -> T | None:
    """Return what the call returns, or None when memory did not suffice; what it had allocated is free again by
    then.
    """
    try:
        return call()
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    # Not in the handler: there, the traceback still holds the tensors of the failed attempt.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an exception of its own; the CPU's allocator has only its message."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
