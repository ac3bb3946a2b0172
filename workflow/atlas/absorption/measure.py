"""Absorption of a direction by a dictionary, word by word (arXiv 2409.14507; rows as SAEBench 0.6 defines them)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int

# Smallest cosine between decoder row and probe of a latent that takes part of the letter's place.
ABSORBER_COSINE = 0.1
# The same of the one latent that takes all of it.
FULL_COSINE = 0.025
# Share of the activation's projection on the probe that absorbing latents must supply.
MIN_SHARE = 0.4
# How many latents together may take the letter's place.
MAX_ABSORBERS = 3
_SILENT = 1e-8


@dataclass(frozen=True)
class WordAbsorption:
    """Per word: the share of the letter that other latents supply, and whether one of them supplies it alone."""

    fraction: Float[np.ndarray, " words"]
    full: Bool[np.ndarray, " words"]


def word_absorption(
    rows: Float[np.ndarray, "words d_model"],
    latents: Float[np.ndarray, "words n_latents"],
    W_dec: Float[np.ndarray, "n_latents d_model"],
    probe: Float[np.ndarray, " d_model"],
    main: Int[np.ndarray, " main"],
) -> WordAbsorption:
    """Absorption of the direction `probe` from the latents `main`, for words on which the probe is right.

    What a latent supplies is its value times its decoder row's length along the unit probe. The fraction is 0 where the
    main latents supply all that the activation has along the probe, or where the `MAX_ABSORBERS` best aligned others
    supply less than `MIN_SHARE` of it; it is 1 where the main latents supply nothing; else it is the others' share of
    what they and the main latents supply, others counted up to what is missing. Full: every main latent is silent,
    and the one latent that supplies most supplies `MIN_SHARE`.
    """
    direction = probe / np.linalg.norm(probe)
    norms = np.linalg.norm(W_dec, axis=1)
    along = W_dec @ direction
    cosine = np.divide(along, norms, out=np.zeros_like(along), where=norms > 0)
    supplied, total = latents * along, rows @ direction
    by_main = supplied[:, main].sum(axis=1)
    may_absorb = cosine >= ABSORBER_COSINE
    may_absorb[main] = False
    others = np.where(may_absorb & (supplied > 0), supplied, 0.0)
    n_absorbers = min(MAX_ABSORBERS, others.shape[1])
    by_others = np.partition(others, -n_absorbers, axis=1)[:, -n_absorbers:].sum(axis=1)
    missing = np.minimum(by_others, total - by_main)
    both = missing + by_main
    fraction = np.divide(missing, both, out=np.ones_like(both), where=(by_main > 0) & (both > 0)).clip(0, 1)
    # A ratio to nothing is no share: nothing of the letter is there to be absorbed.
    enough = np.divide(by_others, total, out=np.zeros_like(total), where=total != 0) >= MIN_SHARE
    fraction = np.where((by_main >= total) | ~enough, 0.0, fraction)
    top = supplied.argmax(axis=1)
    most = supplied[np.arange(len(supplied)), top]
    share = np.divide(most, total, out=np.zeros_like(total), where=total > 0)
    full = (latents[:, main] < _SILENT).all(axis=1) & (cosine[top] >= FULL_COSINE) & (total > 0) & (share >= MIN_SHARE)
    return WordAbsorption(fraction, full)
