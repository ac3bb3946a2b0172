"""Hold an SAE against its twins on the same documents: values, paired differences, what was learnt. docs/twins.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import EvaluationError
from atlas.evaluation.document_sums import DocumentSums, read_document_sums
from atlas.files import write_json
from atlas.sae_files import read_of_sae
from atlas.statistics.clusters import LEAST_CLUSTERS, jackknife_interval
from atlas.twins.learnt import DECIDING, best_twin, learnt
from atlas.twins.measures import MEASURES, TwinMeasure

# Of the text and the model alone, hence the same for an SAE and its twins.
_SHARED = ("count", "square", "clean", "zero", "mean", "mean_regular")


@dataclass(frozen=True)
class EvaluatedSae:
    """One SAE as evaluation left it: metrics.json and document_sums.safetensors."""

    metrics: Path
    sums: Path


def write_comparison(
    sae_id: str, own: EvaluatedSae, twins: Mapping[str, tuple[str, EvaluatedSae]], corpora: Sequence[str], target: Path
) -> None:
    """Write twins.json: an SAE beside its twins (kind -> id and files) on `corpora`.

    Raises EvaluationError when files are of another SAE, or were not judged on the same text.
    """
    read = {"": _read(sae_id, own)} | {kind: _read(name, files) for kind, (name, files) in twins.items()}
    for kind in twins:
        _require_same_text(read[""], read[kind], corpora)
    found = {corpus: _corpus(corpus, read) for corpus in corpora}
    names = {kind: name for kind, (name, _) in twins.items()}
    write_json(target, {"sae_id": sae_id, "twins": names, "corpora": found})


def compare_twins(
    sae_id: str,
    own: EvaluatedSae,
    twins: Mapping[str, str],
    twin_metrics: list[Path],
    twin_sums: list[Path],
    corpora: Sequence[str],
    target: Path,
) -> None:
    """Write the comparison of `write_comparison`; `twins` has the id of each kind, in the order of their files."""
    files = zip(twins.items(), twin_metrics, twin_sums, strict=True)
    judged = {kind: (name, EvaluatedSae(metrics, sums)) for (kind, name), metrics, sums in files}
    write_comparison(sae_id, own, judged, corpora, target)


@dataclass(frozen=True)
class _Read:
    path: Path
    metrics: dict[str, Any]
    sums: dict[str, DocumentSums]
    fingerprints: dict[str, str]

    def atlas(self, corpus: str) -> dict[str, Any]:
        return self.metrics["corpora"][corpus]["atlas"]


def _read(sae_id: str, files: EvaluatedSae) -> _Read:
    return _Read(files.sums, read_of_sae(files.metrics, sae_id), *read_document_sums(files.sums, sae_id))


def _require_same_text(own: _Read, twin: _Read, corpora: Sequence[str]) -> None:
    for corpus in corpora:
        for read in (own, twin):
            if corpus not in read.sums:
                raise EvaluationError(
                    f"{read.path}: has no sums of corpus {corpus!r}, only of {', '.join(read.sums)}; delete it and run "
                    "again"
                )
        if own.fingerprints[corpus] != twin.fingerprints[corpus]:
            raise EvaluationError(
                f"{twin.path}: corpus {corpus!r} has fingerprint {twin.fingerprints[corpus][:12]}…, but "
                f"{own.path} has {own.fingerprints[corpus][:12]}…: an SAE and its twins must be judged on the same "
                "text; delete both and run again"
            )
        ours, theirs = own.sums[corpus].values, twin.sums[corpus].values
        for key in ours:
            if key.split("/")[1] in _SHARED and not (key in theirs and np.array_equal(ours[key], theirs[key])):
                raise EvaluationError(
                    f"{twin.path}: {key} of corpus {corpus!r} differs from {own.path}: they were not judged on the "
                    "same documents; delete both and run again"
                )


def _corpus(corpus: str, read: Mapping[str, _Read]) -> dict[str, Any]:
    twins = [kind for kind in read if kind]
    judged = {kind: read[kind].metrics["corpora"][corpus] for kind in twins}
    measures = {measure.name: _measure(measure, corpus, read) for measure in MEASURES}
    return {
        "role": read[""].metrics["corpora"][corpus]["role"],
        "learnt": measures[DECIDING]["learnt"],
        "twin_outcomes": {kind: each["outcome"]["atlas"]["verdict"] for kind, each in judged.items()},
        "twin_l0": {kind: each["atlas"]["l0"] for kind, each in judged.items()},
        "measures": measures,
    }


def _measure(measure: TwinMeasure, corpus: str, read: Mapping[str, _Read]) -> dict[str, Any]:
    """The SAE's value, each twin's, the best twin, and by how much the SAE is better, above 0 whatever is better."""
    values = {kind: each.atlas(corpus).get(measure.name) for kind, each in read.items()}
    own = values.pop("")
    best = best_twin(values, measure.higher_is_better)
    result: dict[str, Any] = {"value": own, "twins": values, "best_twin": best}
    result["best_value"] = None if best is None else values[best]
    if own is None or best is None:
        nothing = {"better_by": None, "interval": None, "n_documents": None, "learnt": learnt(None)}
        return result | nothing | {"reason": "the measure is not defined for the SAE, or for any twin"}
    one, other = read[""].sums[corpus], read[best].sums[corpus]
    n = measure.n_groups(one)
    # A document without such rows or units is none: leaving it out changes nothing.
    seen = one.values[f"{measure.family}/count"] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(measure.better_by(one, other, np.ones((1, n)))[0])
        without = measure.better_by(one, other, (1 - np.eye(n))[seen])
    interval = jackknife_interval(value, without)
    result |= {"better_by": value, "interval": interval, "n_documents": int(seen.sum()), "learnt": learnt(interval)}
    if interval is None:
        result["reason"] = f"too few documents: {int(seen.sum())}, at least {LEAST_CLUSTERS} are needed"
    return result
