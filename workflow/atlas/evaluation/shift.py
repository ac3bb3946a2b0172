"""An SAE that is fed rows of another scale than it was trained on. docs/metrics.md, section 16."""

import dataclasses
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from atlas.errors import EvaluationError
from atlas.training.sae import Sae


@dataclass(frozen=True)
class FedScaled(Sae):
    """An SAE whose rows are multiplied by `input_scale` before they are encoded; what it reconstructs is not divided.

    So a row x is held against the reconstruction of input_scale · x, as in a pipeline that does its normalisation
    wrong or forgets to undo it.
    """

    input_scale: float = 1.0

    def pre_activations(self, rows: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows n_latents"]:
        """Those of the SAE for rows times `input_scale`."""
        return super().pre_activations(self.input_scale * rows.float())


def fed_scaled(sae: Sae, scale: float) -> Sae:
    """`sae` with its rows multiplied by `scale`, itself if that is 1. Raises EvaluationError for a transcoder."""
    if scale == 1:
        return sae
    if sae.is_transcoder:
        raise EvaluationError(f"scale is {scale}: a transcoder is not judged on scaled rows, expected 1")
    own = {field.name: getattr(sae, field.name) for field in dataclasses.fields(sae)}
    return FedScaled(**own, input_scale=scale)
