"""What both sides train on: the same rows, the same settings. Imported where the references run too: numpy only."""

import numpy as np

D_MODEL, N_LATENTS, BATCH_SIZE, STEPS = 16, 64, 128, 60
# Updates after which weights are compared.
COMPARED = (30, 60)
# Latents that start with a strongly negative bias, hence dead from the start.
PLANTED_DEAD = 8
PLANTED_BIAS = -0.6
_FEATURES, _ACTIVE = 40, 3

_SHARED = {"lr": 2e-3, "warmup_steps": 10, "decay_start": 45}
_SELECTED = {"k": 4, "dead_feature_tokens": 512, "aux_coefficient": 1 / 32}
_THRESHOLD = {"threshold_start_step": 15, "threshold_beta": 0.9}
_PENALISED = {"sparsity_warmup_steps": 20}

# Case: the reference, and the settings under our names.
CASES = {
    "topk": ("dictionary_learning", {"architecture": "topk"} | _SHARED | _SELECTED),
    "batch_topk": ("dictionary_learning", {"architecture": "batch_topk"} | _SHARED | _SELECTED | _THRESHOLD),
    "matryoshka_batch_topk": (
        "dictionary_learning",
        {"architecture": "matryoshka_batch_topk", "group_fractions": [0.125, 0.25, 0.625]}
        | _SHARED
        | _SELECTED
        | _THRESHOLD,
    ),
    "relu": ("dictionary_learning", {"architecture": "relu", "l1_coefficient": 0.05} | _SHARED | _PENALISED),
    "gated": ("dictionary_learning", {"architecture": "gated", "l1_coefficient": 0.05} | _SHARED | _PENALISED),
    "jumprelu": (
        "dictionary_learning",
        {"architecture": "jumprelu", "target_l0": 4.0, "l0_coefficient": 0.5, "bandwidth": 0.05} | _SHARED | _PENALISED,
    ),
    # Its schedule falls from the end of the warm-up; it has no other.
    "sparsify_topk": ("sparsify", {"architecture": "topk"} | _SHARED | _SELECTED | {"decay_start": 10}),
}


def batch(step: int) -> np.ndarray:
    """Rows of one update, (BATCH_SIZE, D_MODEL) float32: sparse sums of fixed directions, an offset, and noise."""
    fixed, drawn = np.random.RandomState(7), np.random.RandomState(1000 + step)  # a stream numpy has frozen
    directions = fixed.normal(size=(_FEATURES, D_MODEL))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    offset = 0.3 * fixed.normal(size=D_MODEL) / np.sqrt(D_MODEL)
    strengths = 0.3 + 0.6 * drawn.uniform(size=(BATCH_SIZE, _FEATURES))
    active = drawn.uniform(size=(BATCH_SIZE, _FEATURES)) < _ACTIVE / _FEATURES
    noise = 0.05 * drawn.normal(size=(BATCH_SIZE, D_MODEL)) / np.sqrt(D_MODEL)
    return ((strengths * active) @ directions + offset + noise).astype(np.float32)
