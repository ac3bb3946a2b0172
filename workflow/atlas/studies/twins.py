"""Columns of what SAEs have learnt that their twins have not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atlas.sae_files import read_of_sae


def read_comparisons(paths: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Read the twins.json of each SAE (SAE id -> file). Raises EvaluationError when one is of another SAE."""
    return {sae_id: read_of_sae(path, sae_id) for sae_id, path in paths.items()}


def twin_columns(comparison: Mapping[str, Any] | None, corpus: str, kinds: Sequence[str]) -> dict[str, Any]:
    """Make the columns of an SAE on one corpus: the word beside its outcome, and each measure beside the best twin.

    None of them without a comparison. `kinds` are the twins that the study asked for: another one may have more.
    """
    if comparison is None:
        return {}
    found = comparison["corpora"][corpus]
    result: dict[str, Any] = {"learnt": found["learnt"]}
    for kind in kinds:
        result[f"twin_outcome_{kind}"] = found["twin_outcomes"][kind]
        result[f"twin_l0_{kind}"] = found["twin_l0"][kind]
    for name, measure in found["measures"].items():
        result |= measure_columns(name, measure, kinds)
    return result


def measure_columns(name: str, measure: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Make ``twin_<kind>_<measure>``, the best twin and its value, the difference with its interval, and the word."""
    low, high = measure["interval"] or (None, None)
    return {
        **{f"twin_{kind}_{name}": measure["twins"][kind] for kind in kinds},
        f"best_twin_{name}": measure["best_twin"],
        f"best_twin_value_{name}": measure["best_value"],
        f"over_twin_{name}": measure["better_by"],
        f"over_twin_{name}_interval_low": low,
        f"over_twin_{name}_interval_high": high,
        f"over_twin_{name}_n_documents": measure["n_documents"],
        f"learnt_{name}": measure["learnt"],
    }
