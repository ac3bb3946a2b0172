"""Measure how well one latent tells labelled texts apart, beside the difference of class means.

Definitions: docs/metrics.md, section 19. A detector comes from training texts, its AUC from held-out ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from atlas.errors import CausalError
from atlas.probing.probes import Split, stratified_split
from atlas.probing.rows import LabelledRows
from atlas.probing.run import encode_rows
from atlas.statistics.auc import Auc, column_aucs
from atlas.statistics.clusters import LEAST_CLUSTERS
from atlas.statistics.intervals import normal_interval
from atlas.training.sae import Sae

# Detectors, the SAE's first. Of the shuffled one the labels have no meaning: .5 but for noise.
METHODS = ("latent", "diffmean", "random", "shuffled")
# Those whose AUC is subtracted from the latent's, on the same texts and labels.
COMPARED = ("diffmean", "random")
# Latents whose ranks are held at a time.
_LATENTS = 4096
# Part of the seed of draws.
_SHUFFLED = 16


@dataclass(frozen=True)
class Detector:
    """The latent that tells two classes apart best, and the class in which it fires more."""

    latent: int
    fires_in: bool


def require_classes(name: str, labels: Bool[np.ndarray, " texts"], test_share: float) -> None:
    """Raise CausalError for a data set that lacks a class, or has too few texts of one on a side of a split."""
    counts = {label: int((labels == label).sum()) for label in (False, True)}
    for label, count in counts.items():
        if count == 0:
            raise CausalError(f"data set {name!r}: all {len(labels)} texts are of class {not label}, must have both")
        n_test = max(1, round(test_share * count))
        if min(n_test, count - n_test) < LEAST_CLUSTERS:
            raise CausalError(
                f"data set {name!r}: {count} texts of class {label}, of which {n_test} are held out; at least "
                f"{LEAST_CLUSTERS} are needed on both sides: leave it out of probing.datasets, or change "
                "probing.test_share"
            )


def detect(
    data: LabelledRows, sae: Sae, randoms: Sequence[Sae], test_share: float
) -> tuple[dict[str, Any], Detector | None]:
    """Numbers of one data set, and the detector of the first split; None if no latent fires on its training texts.

    Split s has the s-th random dictionary. `minus_<method>` is the latent's AUC less that of another detector on the
    same texts. Raises CausalError for an SAE of another width.
    """
    labels, raw = data.labels.numpy().astype(bool), data.rows.double().numpy()
    latents = encode_rows(sae, data.rows)
    found: dict[str, list[Auc]] = {method: [] for method in METHODS}
    chosen = []
    for number, random in enumerate(randoms):
        split = stratified_split(labels, test_share, number)
        shuffled = np.random.Generator(np.random.PCG64([number, _SHUFFLED])).permutation(labels)
        detector, auc = _best_latent(latents, labels, split)
        chosen.append(detector)
        found["latent"].append(auc)
        found["diffmean"].append(_auc(raw @ mean_difference(raw[split.train], labels[split.train]), labels, split))
        found["random"].append(_best_latent(encode_rows(random, data.rows), labels, split)[1])
        found["shuffled"].append(_best_latent(latents, shuffled, split)[1])
    numbers: dict[str, Any] = {method: _summary(aucs) for method, aucs in found.items()}
    for other in COMPARED:
        numbers[f"minus_{other}"] = _difference(found["latent"], found[other])
    return numbers, chosen[0]


def mean_difference(
    rows: Float[np.ndarray, "texts width"], labels: Bool[np.ndarray, " texts"]
) -> Float[np.ndarray, " width"]:
    """Mean of the rows of class True less that of class False."""
    return rows[labels].mean(axis=0) - rows[~labels].mean(axis=0)


def latent_aucs(
    latents: Float[np.ndarray, "texts n_latents"], labels: Bool[np.ndarray, " texts"]
) -> Float[np.ndarray, " n_latents"]:
    """Compute the AUC of each latent for class True, ties counting half; .5 where it never fires."""
    found = np.full(latents.shape[1], 0.5)
    fires = np.flatnonzero((latents != 0).any(axis=0))
    for first in range(0, len(fires), _LATENTS):
        part = fires[first : first + _LATENTS]
        found[part] = column_aucs(latents[:, part], labels)
    return found


def _best_latent(latents: np.ndarray, labels: np.ndarray, split: Split) -> tuple[Detector | None, Auc]:
    """Return the latent that is best on training texts, and its AUC on held-out ones; ties: the lowest number."""
    distance = latent_aucs(latents[split.train], labels[split.train]) - 0.5
    best = int(np.abs(distance).argmax())
    if distance[best] == 0:
        return None, _auc(np.zeros(len(labels)), labels, split)
    fires_in = bool(distance[best] > 0)
    return Detector(best, fires_in), _auc(latents[:, best] if fires_in else -latents[:, best], labels, split)


def _auc(scores: np.ndarray, labels: np.ndarray, split: Split) -> Auc:
    return Auc.of(scores[split.test], labels[split.test])


def _summary(aucs: Sequence[Auc]) -> dict[str, Any]:
    value, variance = (float(np.mean([getattr(auc, name) for auc in aucs])) for name in ("value", "variance"))
    return {"value": value, "interval": normal_interval(value, variance, 0.0, 1.0)}


def _difference(own: Sequence[Auc], other: Sequence[Auc]) -> dict[str, Any]:
    pairs = list(zip(own, other, strict=True))
    value = float(np.mean([one.value - two.value for one, two in pairs]))
    variance = float(np.mean([one.variance_of_difference(two) for one, two in pairs]))
    return {"value": value, "interval": normal_interval(value, variance, -1.0, 1.0)}


def directions_of(
    detector: Detector, sae: Sae, targets: LabelledRows, split: Split
) -> Mapping[str, Float[Tensor, " d_target"]]:
    """Unit directions toward the class in which the latent fires: its decoder row, and the difference of class means.

    `targets` are the texts' rows where the directions are added; training texts alone are used. Raises CausalError for
    a direction of length 0.
    """
    labels = targets.labels.numpy().astype(bool)[split.train] == detector.fires_in
    difference = mean_difference(targets.rows.double().numpy()[split.train], labels)
    found = {"latent": sae.W_dec[detector.latent].float(), "diffmean": torch.from_numpy(difference).float()}
    for name, direction in found.items():
        if not float(direction.norm()) > 0:
            raise CausalError(f"the direction {name!r} of latent {detector.latent} has length 0: nothing to add")
    return {name: direction / direction.norm() for name, direction in found.items()}
