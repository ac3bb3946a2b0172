"""Fold the normalisation of a transcoder into its weights.

A transcoder reads rows at one hook and reconstructs the same tokens' rows at a later one (arXiv 2406.11944). Its
encoder does not subtract b_dec and starts from directions of its own; all else of training is that of an SAE, with the
targets in the place of the rows wherever an error is taken.
"""

from atlas.config.recipe import Recipe
from atlas.training.architectures import ARCHITECTURES
from atlas.training.normalise import Normalisation
from atlas.training.sae import Sae
from atlas.training.state import TrainingState


def folded_transcoder(state: TrainingState, recipe: Recipe, normalisation: Normalisation) -> Sae:
    """The transcoder for rows and targets as stored.

    Latents get the scale of the targets, so that decoder rows keep unit norm and a latent is the length of what it
    adds, as it is in an SAE: W_enc is multiplied by target_scale / scale, biases and threshold by target_scale, and the
    centre of the rows goes into b_enc.
    """
    weights = {name: value.detach().double() for name, value in state.parameters.items()}
    target_scale, centre = normalisation.target_scale, normalisation.centre
    assert target_scale is not None and centre is not None  # only of an SAE they are missing
    W_enc = weights["W_enc"] * (target_scale / normalisation.scale)
    has_threshold = ARCHITECTURES[recipe.architecture].has_threshold and state.threshold >= 0
    return Sae(
        recipe.architecture,
        W_enc=W_enc.float(),
        b_enc=(weights["b_enc"] * target_scale - centre.double() @ W_enc).float(),
        W_dec=weights["W_dec"].float(),
        b_dec=(weights["b_dec"] * target_scale).float(),
        k=recipe.k,
        threshold=(state.threshold * target_scale).item() if has_threshold else None,
        is_transcoder=True,
    )
