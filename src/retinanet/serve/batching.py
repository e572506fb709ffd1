"""Images of many requests through one network: a bounded number of places, and batches of what has the same shape.

Only images whose padded input has the same shape share a batch. Each is then padded exactly as it would be alone, so
an answer never depends on what others sent in the same moment.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

log = logging.getLogger(__name__)

I = TypeVar("I")  # noqa: E741 - what goes into the network
O = TypeVar("O")  # noqa: E741 - what comes out

MOST_SECONDS: Final = 60
"""The longest that a client is told to wait."""
SMOOTHING: Final = 0.1
"""How much the latest batch counts in the running mean of the time an image takes."""


class FullError(Exception):
    """No place is free. `retry_after` says in how many seconds to try again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"no free place, try again in {retry_after} s")
        self.retry_after = retry_after


class Places:
    """How many images may be in the server at once, from the first byte to the answer. For one event loop's thread.

    Args:
        limit: places.
        told: is told how many are taken, whenever that changes.
    """

    def __init__(self, limit: int, told: Callable[[int], None] = lambda _: None) -> None:
        self.limit = limit
        self._told = told
        self.taken = 0
        self.seconds = 0.1
        """Running mean of the time that the network takes for an image."""

    @contextmanager
    def take(self) -> Iterator[_Held]:
        """Hold one place, and as many more as are added, for the length of the block. Raises `FullError`."""
        held = _Held(self)
        held.add(1)
        try:
            yield held
        finally:
            self.taken -= held.count
            self._told(self.taken)

    def worked(self, seconds: float, images: int) -> None:
        """Note how long the network took."""
        self.seconds += SMOOTHING * (seconds / images - self.seconds)

    @property
    def retry_after(self) -> int:
        """Seconds until what is in the server now is done."""
        return min(MOST_SECONDS, max(1, math.ceil(self.taken * self.seconds)))


class _Held:
    def __init__(self, places: Places) -> None:
        self._places = places
        self.count = 0

    def add(self, count: int) -> None:
        if self._places.taken + count > self._places.limit:
            raise FullError(self._places.retry_after)
        self._places.taken += count
        self._places._told(self._places.taken)
        self.count += count


@dataclass(eq=False, slots=True)
class _Job(Generic[I, O]):
    item: I
    key: object
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[O]
    arrived: float = field(default_factory=time.monotonic)

    def finish(self, outcome: O | BaseException) -> None:
        def tell() -> None:
            if self.future.done():  # its client has gone
                return
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

        self.loop.call_soon_threadsafe(tell)


class Batcher(Generic[I, O]):
    """Runs `work` on batches in a thread of its own; `submit` is awaited in the event loop.

    Args:
        work: items of one key -> their results, in order. If it raises for several items it is called for each alone,
            so that the one at fault fails alone.
        key: what must be equal for two items to share a batch.
        max_batch: items at once at the most.
        max_wait: seconds for which the first item of a batch waits for others, as long as some are `coming`.
        coming: how many more items are on their way: none, and nothing is waited for.
        done: told of the size of each batch and the seconds it took.
    """

    def __init__(
        self,
        work: Callable[[Sequence[I]], Sequence[O]],
        *,
        key: Callable[[I], object],
        max_batch: int,
        max_wait: float,
        coming: Callable[[], int],
        done: Callable[[int, float], None],
    ) -> None:
        self._work = work
        self._key = key
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._coming = coming
        self._done = done
        self._jobs: deque[_Job[I, O]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="retinanet-network", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what was submitted, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether items are taken."""
        return self._thread.is_alive() and not self._stopping

    async def submit(self, item: I) -> O:
        """Return the item's result. If this is cancelled before the item is looked at, it never is."""
        loop = asyncio.get_running_loop()
        job: _Job[I, O] = _Job(item=item, key=self._key(item), loop=loop, future=loop.create_future())
        with self._changed:
            if self._stopping:
                raise RuntimeError("the batcher has stopped")
            self._jobs.append(job)
            self._changed.notify()
        try:
            return await job.future
        except asyncio.CancelledError:
            with self._changed:
                if job in self._jobs:
                    self._jobs.remove(job)
            raise

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            start = time.perf_counter()
            self._finish(batch)
            self._done(len(batch), time.perf_counter() - start)

    def _next(self) -> list[_Job[I, O]] | None:
        """Return the next batch, None at the end."""
        with self._changed:
            while True:
                if not self._jobs:
                    if self._stopping:
                        return None
                    self._changed.wait()
                    continue
                first = self._jobs[0]
                alike = [job for job in self._jobs if job.key == first.key][: self._max_batch]
                left = first.arrived + self._max_wait - time.monotonic()
                # Others that wait already, but have another shape, are no reason to wait either.
                full = len(alike) == self._max_batch or len(alike) < len(self._jobs)
                if full or left <= 0 or self._stopping or self._coming() <= 0:
                    for job in alike:
                        self._jobs.remove(job)
                    return alike
                self._changed.wait(left)

    def _finish(self, batch: list[_Job[I, O]]) -> None:
        try:
            results = self._work([job.item for job in batch])
        except Exception as error:  # noqa: BLE001 - no Triton, no compiler, no driver, an old card: each raises its own
            if len(batch) == 1:
                batch[0].finish(error)
                return
            log.warning("a batch of %d failed (%s); its images are looked at one by one", len(batch), error)
            for job in batch:
                self._finish([job])
            return
        for job, result in zip(batch, results, strict=True):
            job.finish(result)
