"""From rows as stored to rows as trained on. The way back is folded into the saved weights."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from atlas.config.recipe import Recipe
from atlas.errors import TrainingError
from atlas.training.streams import PairStream, RowStream


@dataclass(frozen=True)
class Normalisation:
    """Divisor of rows; for a transcoder also the divisor of its targets and the centre of its rows.

    An SAE's encoder subtracts b_dec, which is near the middle of the rows. A transcoder's b_dec is a point of the
    target, so that its rows are centred at their mean (`centre`, float32, in the scale of the store) before training.
    """

    scale: float
    target_scale: float | None = None
    centre: Float[Tensor, " d_model"] | None = None

    def rows(self, rows: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows d_model"]:
        """Rows as trained on, float32."""
        rows = rows.float()
        return rows / self.scale if self.centre is None else (rows - self.centre) / self.scale

    def targets(self, targets: Float[Tensor, "rows d_target"]) -> Float[Tensor, "rows d_target"]:
        """A transcoder's targets as trained on, float32."""
        assert self.target_scale is not None  # only an SAE has none, and it has no targets
        return targets.float() / self.target_scale

    def described(self) -> dict[str, Any]:
        """For the run card."""
        own = {} if self.centre is None else {"rows_centred": "mean", "targets_divided_by": self.target_scale}
        return {"rows_divided_by": self.scale} | own | {"folded_into_weights": True}


def normalisation_of_sae(recipe: Recipe, stream: RowStream) -> Normalisation:
    """Rows are divided by their root mean square norm, or left as they are if the recipe says so."""
    if not recipe.normalise_activations:
        return Normalisation(1.0)
    return Normalisation(_root(stream.statistics().mean_square_norm, "the training rows"))


def normalisation_of_transcoder(recipe: Recipe, stream: PairStream, device: torch.device) -> Normalisation:
    """Rows are centred and divided by their root mean square distance from the mean; targets as the rows of an SAE."""
    rows, targets = stream.statistics(), stream.target_statistics()
    centre = rows.mean.to(device, torch.float32)
    if not recipe.normalise_activations:
        return Normalisation(1.0, 1.0, centre)
    spread = rows.mean_square_norm - rows.mean.double().square().sum().item()
    return Normalisation(
        _root(spread, "the centred training rows"), _root(targets.mean_square_norm, "the training targets"), centre
    )


def _root(mean_square: float, what: str) -> float:
    scale = mean_square**0.5 if mean_square > 0 else mean_square
    if not 0 < scale < float("inf"):
        raise TrainingError(f"root mean square norm of {what} is {scale}: expected a positive number")
    return scale
