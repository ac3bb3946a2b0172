"""Numbers that are not defined, in results that are JSON: None, with a reason."""

import math
from typing import Any


def without_nonfinite(value: Any, reasons: dict[str, str], path: str = "") -> Any:
    """The same nested value with None for every NaN or infinity; `reasons` (keyed by joined path) is added to."""
    if isinstance(value, dict):
        return {key: without_nonfinite(item, reasons, f"{path}_{key}".lstrip("_")) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nonfinite(item, reasons, path) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        reasons[path] = f"the computed value is {value}"
        return None
    return value
