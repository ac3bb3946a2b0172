"""Progress for people: a bar on a terminal, plain lines at a fixed pace in a log."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

log = logging.getLogger(__name__)

_LOG_SECONDS = 15.0
_LOGS = "logs"
_job = ""


def name_job(log_file: Path) -> None:
    """Name this process by its job's log, results/logs/<rule>/<what it is of>.log, in all its progress.

    Jobs that run at once share a terminal, and two trainings would otherwise say the same.
    """
    global _job
    parts = Path(log_file).with_suffix("").parts
    _job = "/".join(parts[parts.index(_LOGS) + 1 :] if _LOGS in parts else parts[-1:])


class Progress:
    """Counts `unit`s up to `total`; shows the job, rate and remaining time.

    On a terminal this is a tqdm bar. In a log a bar would be thousands of carriage returns, so the log gets a
    plain line at most every 15 seconds instead.
    """

    def __init__(self, total: int, label: str, unit: str):
        self.total, self.label, self.unit = total, f"{_job}: {label}" if _job else label, unit
        self.done = 0
        self._note = ""
        self._start = self._last = time.monotonic()
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=self.label,
            unit=f" {unit}",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not on_terminal,
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
        if self.done >= self.total:
            time_of = f"in {elapsed:.0f} s"
        else:
            time_of = f"ETA {(self.total - self.done) / rate:.0f} s" if rate else "ETA not known"
        text = f"{self.label}: {self.done:,}/{self.total:,} {self.unit}  {_number(rate)} {self.unit}/s  {time_of}"
        log.info("%s", f"{text}  {self._note}".rstrip())


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


@contextmanager
def progress(total: int, label: str, unit: str) -> Iterator[Progress]:
    """A `Progress` that is closed whatever happens; `unit` is what is counted, in the singular."""
    shown = Progress(total, label, unit)
    try:
        yield shown
    finally:
        shown.close()
