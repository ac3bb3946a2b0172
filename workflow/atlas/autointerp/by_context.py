"""Predict where a latent fires strongly from one plain fact of a token: the simplest explanations, without a label.

The facts are the token, the token after it, and how it is spelled: what a reader of contexts sees at once, and what no
label of words can say.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

from atlas.autointerp.windows import Windows, firings
from atlas.codes.store import Codes

TOKEN = "token"
# Correlation below which a fact tells nothing, whatever random dictionaries have: it explains 4 % of the variance.
LEAST_TOLD = 0.2
# Firings that count as strong: this share of a latent's, the strongest.
STRONG_SHARE = 0.1


def _folded(text: str) -> str:
    return text.strip().lower() or text


# What is read from a token's text, and whether from the token itself or from the one after it.
_FACTS: Mapping[str, tuple[Callable[[str], str], int]] = {
    TOKEN: (_folded, 0),
    "next token": (lambda text: text, 1),
    "first letter": (lambda text: _folded(text)[:1], 0),
    "last letters": (lambda text: _folded(text)[-2:], 0),
}
FACTS = tuple(_FACTS)


def column(fact: str) -> str:
    """Return the name of the column with the correlations of a fact."""
    return f"{fact.replace(' ', '_')}_correlation"


def fact_correlations(
    codes: Sequence[Codes], windows: Windows, texts: Sequence[str], seed: int, min_firings: int
) -> dict[str, Float[np.ndarray, " n_latents"]]:
    """Correlate each latent's strong firings with their share among tokens of the same fact, over held-out tokens.

    Strong are the strongest tenth of a latent's firings on the explainer's half of the documents, at least
    `min_firings` of them. The shares come from that half, the correlation (Pearson) from the other, both over counted
    tokens inside windows, massive activations left out. A fact that the first half lacks gets the share of all tokens.
    NaN for latents that fire on fewer than `min_firings` tokens of either half. `texts` are those of all token ids.
    """
    found = {}
    for name, (read, ahead) in _FACTS.items():
        values = np.unique([read(text) for text in texts], return_inverse=True)[1]
        known = np.ones(windows.tokens.shape, bool)
        known[:, windows.width - ahead :] = False
        value = np.roll(values[windows.tokens], -ahead, axis=1)
        usable = windows.counted & ~_massive(codes, windows) & known
        found[name] = _correlations(codes, windows, value, usable, seed, min_firings)
    return found


def _correlations(
    codes: Sequence[Codes],
    windows: Windows,
    value: Int[np.ndarray, "windows width"],
    usable: Bool[np.ndarray, "windows width"],
    seed: int,
    min_firings: int,
) -> Float[np.ndarray, " n_latents"]:
    used, place = np.unique(value, return_inverse=True)
    place = place.reshape(value.shape)
    training = windows.training(seed)
    n_train, n_test = (
        np.bincount(place[half][usable[half]], minlength=len(used)).astype(np.float64) for half in (training, ~training)
    )
    found = []
    for block in firings(codes, windows):
        keep = usable[block.window, block.place]
        latent, window = block.latent[keep], block.window[keep]
        token, activation = place[window, block.place[keep]], block.value[keep]
        seen = training[window]
        for low, high in pairwise(np.searchsorted(latent, np.arange(block.n_latents + 1))):
            own = slice(low, high)
            train = seen[own]
            if min(train.sum(), (~train).sum()) < min_firings:
                found.append(np.nan)
                continue
            strong = activation[own] >= _least_strong(activation[own][train], min_firings)
            found.append(_correlation(token[own][strong & train], token[own][strong & ~train], n_train, n_test))
    return np.array(found)


def _least_strong(activations: Float[np.ndarray, " firings"], at_least: int) -> float:
    rank = max(round(STRONG_SHARE * len(activations)), at_least)
    return float(np.sort(activations)[-rank])


def _correlation(
    train: Int[np.ndarray, " train"],
    test: Int[np.ndarray, " test"],
    n_train: Float[np.ndarray, " values"],
    n_test: Float[np.ndarray, " values"],
) -> float:
    """Correlate one latent; `train` and `test` are the values of the fact where it fires strongly."""
    total = np.bincount(train, minlength=len(n_train))
    share = total.sum() / n_train.sum()
    predicted = np.divide(total, n_train, out=np.full(len(total), share), where=n_train > 0)
    count = n_test.sum()
    x, y = (predicted * n_test).sum() / count, len(test) / count
    covariance = predicted[test].sum() / count - x * y
    spread = ((predicted**2 * n_test).sum() / count - x**2) * (y - y**2)
    return float(covariance / np.sqrt(spread)) if spread > 0 else np.nan


def _massive(codes: Sequence[Codes], windows: Windows) -> Bool[np.ndarray, "windows width"]:
    """Return which tokens of the windows have massive activations."""
    result = np.zeros(windows.tokens.shape, bool)
    for number, own in enumerate(codes):
        mine = windows.corpus == number
        result[mine] = own.massive[windows.start[mine][:, None] + np.arange(windows.width)]
    return result
