"""Ending on request: a scheduler that takes the machine back sends SIGTERM and waits a little."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

# 128 + SIGTERM: what a shell reports for a process that SIGTERM ended.
EXIT_CODE = 128 + signal.SIGTERM


class Preempted(SystemExit):
    """Training was asked to end, and wrote a checkpoint first. Run again to go on."""

    def __init__(self, step: int):
        super().__init__(EXIT_CODE)
        self.step = step


@contextmanager
def listen() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; the previous handler is put back at the end.

    Python allows handlers in the main thread only; elsewhere the event is never set, and that is logged.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        log.warning("training outside the main thread: SIGTERM will not be answered with a checkpoint")
        yield asked
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)
