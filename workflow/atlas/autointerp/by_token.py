"""Predict a latent's activation from the token alone: the simplest explanation, without a label."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from atlas.autointerp.windows import Windows, firings
from atlas.codes.store import Codes

# Correlation on held-out documents above which the token tells where a latent fires.
TOLD_BY_TOKEN = 0.5


def token_correlation(
    codes: Sequence[Codes], windows: Windows, seed: int, min_firings: int
) -> Float[np.ndarray, " n_latents"]:
    """Correlate each latent's activation with the mean activation of its token, over held-out tokens.

    The means come from the explainer's half of the documents, the correlation (Pearson) from the other half, both over
    counted tokens inside windows, massive activations left out. A token that the first half lacks gets the mean of all
    tokens. NaN for latents that fire on fewer than `min_firings` tokens of either half.
    """
    usable = windows.counted & ~_massive(codes, windows)
    used, place = np.unique(windows.tokens, return_inverse=True)
    place = place.reshape(windows.tokens.shape)
    training = windows.training(seed)
    n_train, n_test = (
        np.bincount(place[half][usable[half]], minlength=len(used)).astype(np.float64) for half in (training, ~training)
    )
    found = []
    for block in firings(codes, windows):
        keep = usable[block.window, block.place]
        latent, window = block.latent[keep], block.window[keep]
        token, value = place[window, block.place[keep]], block.value[keep].astype(np.float64)
        seen = training[window]
        bounds = np.searchsorted(latent, np.arange(block.n_latents + 1))
        for low, high in pairwise(bounds):
            own = slice(low, high)
            parts = [(token[own][half], value[own][half]) for half in (seen[own], ~seen[own])]
            enough = min(len(values) for _, values in parts) >= min_firings
            found.append(_correlation(*parts, n_train, n_test) if enough else np.nan)
    return np.array(found)


def _correlation(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    n_train: Float[np.ndarray, " tokens"],
    n_test: Float[np.ndarray, " tokens"],
) -> float:
    """Of one latent; `train` and `test` are the tokens on which it fires and its activations there."""
    total = np.bincount(train[0], weights=train[1], minlength=len(n_train))
    mean = total.sum() / n_train.sum()
    predicted = np.divide(total, n_train, out=np.full(len(total), mean), where=n_train > 0)
    count, (token, value) = n_test.sum(), test
    x, y = (predicted * n_test).sum() / count, value.sum() / count
    covariance = (predicted[token] * value).sum() / count - x * y
    spread = ((predicted**2 * n_test).sum() / count - x**2) * ((value**2).sum() / count - y**2)
    return float(covariance / np.sqrt(spread)) if spread > 0 else np.nan


def _massive(codes: Sequence[Codes], windows: Windows) -> np.ndarray:
    """Return which tokens of the windows have massive activations."""
    result = np.zeros(windows.tokens.shape, bool)
    for number, own in enumerate(codes):
        mine = windows.corpus == number
        result[mine] = own.massive[windows.start[mine][:, None] + np.arange(windows.width)]
    return result
