"""Numbers as pages print them: three significant digits, and a dash for what is not known."""

import math
from typing import Any, TypeGuard

MISSING = "–"


def short(value: Any) -> str:
    """Three significant digits, thousands with commas; a dash for None and NaN."""
    if not known(value):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 10):
        return f"{int(value):,}"
    number = float(value)
    if number != 0 and (abs(number) < 1e-3 or abs(number) >= 1e6):
        return f"{number:.1e}".replace("e-0", "e−").replace("e-", "e−").replace("e+0", "e")
    decimals = max(0, 2 - math.floor(math.log10(abs(number)))) if number else 0
    return f"{number:,.{decimals}f}".replace("-", "−")


def percent(share: Any) -> str:
    """A share as a percentage with two significant digits."""
    if not known(share):
        return MISSING
    value = 100 * float(share)
    decimals = 0 if value == 0 or abs(value) >= 9.95 else 1 if abs(value) >= 0.95 else 2
    return f"{value:.{decimals}f} %".replace("-", "−")


def known(value: Any) -> TypeGuard[float]:
    """Return whether there is a number at all."""
    return value is not None and value == value and not (isinstance(value, float) and math.isinf(value))
