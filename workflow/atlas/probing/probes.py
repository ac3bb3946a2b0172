"""Logistic probes on few latents, or on all of a dense activation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from jaxtyping import Integer as Int
from sklearn.linear_model import LogisticRegression

from atlas.statistics.auc import Auc

# Inverse strengths of the L2 penalty that a dense probe chooses from.
DENSE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_VALIDATION = 0.25


@dataclass(frozen=True)
class Split:
    """Training and test rows."""

    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]


@dataclass(frozen=True)
class Score:
    """Scores of a probe on test rows."""

    auc: Auc
    f1: float


def stratified_split(
    labels: Int[np.ndarray, " rows"] | Bool[np.ndarray, " rows"], test_share: float, seed: int
) -> Split:
    """Each class on both sides, `test_share` of it (rounded, at least one row) for testing."""
    generator = np.random.Generator(np.random.PCG64(seed))
    train, test = [], []
    for label in np.unique(labels):
        order = generator.permutation(np.flatnonzero(labels == label))
        n_test = min(max(1, round(test_share * len(order))), len(order) - 1)
        test.append(order[:n_test])
        train.append(order[n_test:])
    return Split(np.sort(np.concatenate(train)), np.sort(np.concatenate(test)))


def separation(
    latents: Float[np.ndarray, "rows n_latents"], labels: Bool[np.ndarray, " rows"]
) -> Float[np.ndarray, " n_latents"]:
    """|difference of the class means| / standard deviation over all rows; 0 for a latent that does not vary.

    sae-probes divides by the mean of what fires instead. The standard deviation makes a dimension of a raw activation
    that is large on every row no better than it is, and a latent that fires once no better than a rumour.
    """
    spread = latents.std(axis=0)
    difference = np.abs(latents[labels].mean(axis=0) - latents[~labels].mean(axis=0))
    return np.divide(difference, spread, out=np.zeros_like(spread), where=spread > 1e-12)


def ranked_latents(
    latents: Float[np.ndarray, "rows n_latents"], labels: Bool[np.ndarray, " rows"]
) -> Int[np.ndarray, " n_latents"]:
    """Latents by `separation`, largest first, ties by lowest index."""
    return np.argsort(-separation(latents, labels), kind="stable")


def probe_score(
    features: Float[np.ndarray, "rows features"],
    train_labels: Bool[np.ndarray, " train"],
    test_labels: Bool[np.ndarray, " test"],
    split: Split,
    strength: float = 1.0,
) -> Score:
    """Logistic regression on standardised features, fitted on training rows and scored on test rows."""
    train, test = features[split.train], features[split.test]
    mean, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
    model.fit((train - mean) / spread, train_labels)
    scores = model.decision_function((test - mean) / spread)
    return Score(Auc.of(scores, test_labels), f1_score(test_labels, scores > 0))


def f1_score(labels: Bool[np.ndarray, " rows"], predicted: Bool[np.ndarray, " rows"]) -> float:
    """2 · hits / (labels + predictions), 0 where nothing is found; scikit-learn's takes longer than a small fit."""
    return 2 * float((labels & predicted).sum()) / max(1, int(labels.sum()) + int(predicted.sum()))


def dense_strength(
    rows: Float[np.ndarray, "rows d_model"], labels: Bool[np.ndarray, " rows"], split: Split, seed: int
) -> float:
    """The strength of `DENSE_STRENGTHS` with the best AUC on a quarter of the training rows; ties: the strongest."""
    inner = stratified_split(labels[split.train], _VALIDATION, seed)
    inner = Split(split.train[inner.train], split.train[inner.test])
    scores = [
        probe_score(rows, labels[inner.train], labels[inner.test], inner, strength).auc.value
        for strength in DENSE_STRENGTHS
    ]
    return DENSE_STRENGTHS[int(np.argmax(scores))]


def n_reaching(f1: list[float], goal: float) -> int | None:
    """Smallest number of latents whose F1 is at least `goal`; `f1` is that of 1, 2, … latents."""
    return next((k for k, value in enumerate(f1, start=1) if value >= goal), None)


def n_split(f1: list[float], jump: float) -> int:
    """Latents before the first that gains no more than `jump` of F1 (the criterion of arXiv 2409.14507)."""
    return next((k for k in range(1, len(f1)) if f1[k] <= f1[k - 1] + jump), len(f1))
