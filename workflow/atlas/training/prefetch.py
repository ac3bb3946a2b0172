"""Reading ahead: the next batches are read while the current one is trained on."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from atlas.training.streams import RowBatch, RowStream

# One batch being read and one ready: more would only hold memory, since reading is on average faster than training.
AHEAD = 2


class Prefetcher:
    """Batches of steps start, start + 1, ..., stop - 1 in order; `stall_seconds` is the time spent waiting for them.

    One thread reads, so the stream is never entered twice at once. An error of the stream is raised by `next_batch`
    of its step.
    """

    def __init__(self, stream: RowStream, start: int, stop: int, executor: ThreadPoolExecutor):
        self._stream, self._executor = stream, executor
        self._steps = iter(range(start, stop))
        self._waiting: deque[Future[RowBatch]] = deque()
        self.stall_seconds = 0.0
        for _ in range(AHEAD):
            self._request()

    def next_batch(self) -> RowBatch:
        """The batch of the next step."""
        started = time.monotonic()
        batch = self._waiting.popleft().result()
        self.stall_seconds += time.monotonic() - started
        self._request()
        return batch

    def _request(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._waiting.append(self._executor.submit(self._stream.batch, step))


@contextmanager
def prefetch(stream: RowStream, start: int, stop: int) -> Iterator[Prefetcher]:
    """A `Prefetcher` whose thread has ended when the block is left."""
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        yield Prefetcher(stream, start, stop, executor)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
