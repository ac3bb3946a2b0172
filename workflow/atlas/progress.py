"""Progress for people: a bar on a terminal, plain lines at a fixed pace in a log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

log = logging.getLogger(__name__)

_LOG_SECONDS = 15.0


class Progress:
    """Counts `unit`s up to `total`; shows rate and remaining time.

    On a terminal this is a tqdm bar. In a log a bar would be thousands of carriage returns, so the log gets a
    plain line at most every 15 seconds instead.
    """

    def __init__(self, total: int, label: str, unit: str):
        self.total, self.label, self.unit = total, label, unit
        self.done = 0
        self._note = ""
        self._start = self._last = time.monotonic()
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, desc=label, unit=unit, unit_scale=True, dynamic_ncols=True, disable=not on_terminal
        )

    def update(self, amount: int, **values: float) -> None:
        """Advance by `amount`; `values` are shown beside the count."""
        self.done += amount
        self._bar.update(amount)
        if values:
            self._note = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            self._bar.set_postfix_str(self._note)
        if time.monotonic() - self._last >= _LOG_SECONDS:
            self._last = time.monotonic()
            self._line()

    def close(self) -> None:
        """Print the last state."""
        self._bar.close()
        self._line()

    def _line(self) -> None:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / elapsed
        left = (self.total - self.done) / rate if rate else float("inf")
        text = f"{self.label}: {self.done:,}/{self.total:,} {self.unit}  {rate:,.0f} {self.unit}/s  ETA {left:.0f} s"
        log.info("%s", f"{text}  {self._note}".rstrip())


@contextmanager
def progress(total: int, label: str, unit: str = "tok") -> Iterator[Progress]:
    """A `Progress` that is closed whatever happens."""
    shown = Progress(total, label, unit)
    try:
        yield shown
    finally:
        shown.close()
