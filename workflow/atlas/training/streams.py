"""Interface of a source of batches; `atlas.activations.stream.BatchStream` is one."""

from pathlib import Path
from typing import Protocol

from jaxtyping import Float
from torch import Tensor


class RowBatch(Protocol):
    """Rows of one update, and how many came from each corpus."""

    @property
    def rows(self) -> Float[Tensor, "batch d_model"]:
        """Rows in the storage dtype."""
        ...

    @property
    def corpora(self) -> dict[str, int]:
        """Rows drawn of each corpus."""
        ...


class RowStatistics(Protocol):
    """Float64 statistics over all rows that can be drawn."""

    @property
    def n_rows(self) -> int | None:
        """Rows that can be drawn; None while nobody has counted them all."""
        ...

    @property
    def mean(self) -> Float[Tensor, " d_model"]:
        """Mean row."""
        ...

    @property
    def mean_square_norm(self) -> float:
        """Mean of the squared norms."""
        ...

    @property
    def median_norm(self) -> float:
        """Median of the norms."""
        ...


class RowStream(Protocol):
    """Batches as a pure function of the step."""

    @property
    def d_model(self) -> int:
        """Width of the rows."""
        ...

    @property
    def identity(self) -> str:
        """Hash of everything that decides which rows are drawn."""
        ...

    def batch(self, step: int) -> RowBatch:
        """The rows of one step."""
        ...

    def where(self, step: int) -> list[tuple[Path, int]]:
        """File and row number of each row of `batch(step)`."""
        ...

    def statistics(self) -> RowStatistics:
        """Statistics over all rows."""
        ...

    def drawn_shares(self, steps: int) -> dict[str, float]:
        """Share of each corpus in the rows of the first `steps` steps."""
        ...


class PairBatch(RowBatch, Protocol):
    """Rows of one update with what a transcoder reconstructs from them."""

    @property
    def targets(self) -> Float[Tensor, "batch d_target"]:
        """The same tokens' rows at the target hook, in the storage dtype."""
        ...


class PairStream(RowStream, Protocol):
    """Batches of pairs, for a transcoder; `statistics` are those of the rows."""

    @property
    def d_target(self) -> int:
        """Width of the targets."""
        ...

    def batch(self, step: int) -> PairBatch:
        """The pairs of one step."""
        ...

    def target_statistics(self) -> RowStatistics:
        """Statistics over all targets."""
        ...
