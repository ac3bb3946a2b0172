"""Probes for letters, and the latents into which a dictionary splits them."""

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float
from jaxtyping import Integer as Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from atlas.errors import EvaluationError
from atlas.probing.probes import Split, f1_score, n_split

# L1 penalty on a letter's weights beside its mean loss (SAEBench 0.6).
L1 = 0.01
# Inverse strength of the dense probe's L2 penalty, on rows of unit mean variance. Of 1e-4 to 1e-1 it gives the best F1
# on held-out words, and the most letters with a probe, at layers 4, 10 and 28 of SmolLM2-135M.
DENSE_STRENGTH = 0.1


@dataclass(frozen=True)
class LetterProbe:
    """A dense probe of one letter: its direction in the space of the rows, its scores, its F1 on test words."""

    direction: Float[np.ndarray, " d_model"]
    scores: Float[np.ndarray, " words"]
    f1: float


def dense_probe(rows: Float[np.ndarray, "words d_model"], is_letter: np.ndarray, split: Split) -> LetterProbe:
    """Logistic regression with balanced classes on rows that are centred and divided by one number.

    One number for all dimensions, so that the direction is one of the rows' own space, as decoder rows are.
    """
    train = rows[split.train].astype(np.float64)
    mean = train.mean(axis=0)
    scale = np.sqrt(train.var(axis=0).mean())
    model = LogisticRegression(C=DENSE_STRENGTH, class_weight="balanced", max_iter=2000)
    model.fit((train - mean) / scale, is_letter[split.train])
    scores = model.decision_function((rows - mean) / scale)
    return LetterProbe(model.coef_[0] / scale, scores, f1_score(is_letter[split.test], scores[split.test] > 0))


def candidates(
    latents: Float[np.ndarray, "words n_latents"], is_letter: np.ndarray, split: Split, most: int
) -> Int[np.ndarray, " candidates"]:
    """Latents that speak for a letter: those of largest positive weight in a sparse probe, at most `most`.

    The probe is fitted to its optimum from weights of zero, class weights balanced as in SAEBench, whose own starts at
    random weights and, with one step an epoch, stays there when the vocabulary is small. Latents are divided by one
    number, their mean where they fire, so that the penalty does not depend on the rows' units.
    """
    values = scipy.sparse.csr_array(latents[split.train])
    if not values.nnz:
        return np.empty(0, np.int64)
    labels = is_letter[split.train]
    n_positive = int(labels.sum())
    weights = {True: (len(labels) - n_positive) / n_positive, False: 1.0}
    model = LogisticRegression(
        C=1 / (L1 * len(labels)),
        l1_ratio=1.0,
        class_weight=weights,
        solver="liblinear",
        intercept_scaling=10.0,
        max_iter=1000,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(values / values.data.mean(), labels)
        except ConvergenceWarning as error:
            raise EvaluationError("the sparse probe of a letter did not converge in 1000 iterations") from error
    order = np.argsort(-model.coef_[0], kind="stable")[:most]
    return order[model.coef_[0][order] > 0]


def few_latents_f1(
    latents: Float[np.ndarray, "words n_latents"],
    chosen: Int[np.ndarray, " candidates"],
    is_letter: np.ndarray,
    split: Split,
) -> list[float]:
    """F1 on test words of balanced logistic regression on the first 1, 2, … of the chosen latents."""
    scale = np.abs(latents[split.train]).max() or 1.0
    result = []
    for k in range(1, len(chosen) + 1):
        features = latents[:, chosen[:k]] / scale
        model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=1000)
        model.fit(features[split.train], is_letter[split.train])
        scores = model.decision_function(features[split.test])
        result.append(f1_score(is_letter[split.test], scores > 0))
    return result


def main_latents(chosen: Int[np.ndarray, " candidates"], f1: list[float], jump: float) -> Int[np.ndarray, " main"]:
    """The latents into which the letter is split: as many as each raise F1 by more than `jump`."""
    return chosen[: n_split(f1, jump)] if len(chosen) else chosen
