"""Progress for people: a bar on a terminal, plain lines at a fixed pace in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

_LOG_SECONDS = 15.0


class Progress:
    """Counts `unit`s up to `total`; shows rate and remaining time.

    On a terminal this is a tqdm bar. In a log file a bar would be thousands of carriage returns, so a plain
    line is printed at most every 15 seconds instead.
    """

    def __init__(self, total: int, label: str, unit: str, stream=None):
        self.total, self.label, self.unit = total, label, unit
        self.stream = stream or sys.stderr
        self.done = 0
        self._note = ""
        self._start = self._last = time.monotonic()
        self._bar = None
        if self.stream.isatty():
            self._bar = tqdm(total=total, desc=label, unit=unit, unit_scale=True, file=self.stream, dynamic_ncols=True)

    def update(self, amount: int, **values: float) -> None:
        """Advance by `amount`; `values` are shown beside the count."""
        self.done += amount
        if values:
            self._note = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.update(amount)
            if values:
                self._bar.set_postfix_str(self._note)
        elif time.monotonic() - self._last >= _LOG_SECONDS:
            self._last = time.monotonic()
            self._line()

    def close(self) -> None:
        """Print the last state."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._line()

    def _line(self) -> None:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / elapsed
        left = (self.total - self.done) / rate if rate else float("inf")
        text = f"{self.label}: {self.done:,}/{self.total:,} {self.unit}  {rate:,.0f} {self.unit}/s  ETA {left:.0f} s"
        print(f"{text}  {self._note}".rstrip(), file=self.stream, flush=True)


@contextmanager
def progress(total: int, label: str, unit: str = "tok") -> Iterator[Progress]:
    """A `Progress` that is closed whatever happens."""
    shown = Progress(total, label, unit)
    try:
        yield shown
    finally:
        shown.close()
