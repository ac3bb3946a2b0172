"""Labelled concepts of a study: one row per SAE, task, data set, strength and method."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from atlas.concepts.detection import METHODS as DETECTORS
from atlas.concepts.steering import METHODS as DIRECTIONS
from atlas.studies.rows import frame_of, results_of
from atlas.tables import write_csv

# The data set's name of rows that are means over all data sets.
ALL = "(all)"


def write_concepts_table(study: str, results: Mapping[str, Path], table: Path) -> None:
    """Write results/<study>_concepts.csv from the concepts.json of each SAE (SAE id → file).

    Rows of data set `(all)` are means over data sets, with intervals over data sets; columns: docs/metrics.md, section
    19. Raises EvaluationError when a file is of another SAE.
    """
    rows: list[dict[str, Any]] = []
    for who, found in results_of(study, results):
        rows += [who | row for row in (*_detection(found["detection"]), *_steering(found["steering"]))]
    write_csv(table, frame_of(rows, columns=None if rows else ["study"]))


def _detection(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, data in (*found["datasets"].items(), (ALL, found[ALL])):
        for method in DETECTORS:
            about = {"task": "detection", "dataset": name, "strength": None, "method": method}
            own = {"n_texts": data["n_texts"], **data["detector"]} if method == "latent" and "detector" in data else {}
            yield about | own | _value("score", data[method]) | _over("latent_over", data.get(f"minus_{method}"))


def _steering(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    about = {"task": "steering", "dataset": ALL, "strength": None, "method": None}
    if found["reason"] is not None:
        yield about | {"reason": found["reason"]}
        return
    for name, data in found["datasets"].items():
        about = {"task": "steering", "dataset": name, "judge_auc": data["judge_auc"]}
        if data["reason"] is not None:
            yield about | {"reason": data["reason"]}
        for strength, numbers in data["strengths"].items():
            yield from _methods(about | {"strength": float(strength)}, numbers)
    for strength, numbers in found[ALL].items():
        yield from _methods({"task": "steering", "dataset": ALL, "strength": float(strength)}, numbers)


def _methods(about: Mapping[str, Any], numbers: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for method in DIRECTIONS:
        own = numbers.get(method)
        if own is None:
            continue
        row = {**about, "method": method, "reason": own.get("reason")}
        if "score" in own:
            row |= _value("score", own["score"]) | _value("loss", own["loss"]) | {"distinct": own["distinct"]}
        yield row | _over("latent_over", numbers.get(f"minus_{method}"))


def _value(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    low, high = found["interval"] or (None, None)
    return {name: found["value"], f"{name}_low": low, f"{name}_high": high}


def _over(name: str, found: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if found is None else _value(name, found)
