"""Run the images of many requests through one model: a limited number of slots, and batches of equal input shape.

Only images whose padded input has the same shape share a batch. The padding of an image, and so its detections, do not
depend on the other images of the batch.
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

I = TypeVar("I")  # noqa: E741 - an input of `Batcher.work`
O = TypeVar("O")  # noqa: E741 - an output of `Batcher.work`

MAX_RETRY_SECONDS: Final = 60
"""Largest value of the header Retry-After, seconds."""
SMOOTHING: Final = 0.1
"""Weight of the latest batch in the running mean of the processing time per image."""


class QueueFullError(Exception):
    """All slots are in use. `retry_after` is the number of seconds after which to try again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all slots are in use, try again in {retry_after} s")
        self.retry_after = retry_after


class Slots:
    """Limit the number of images in the server, each counted from the first byte of its request to the answer.

    Use it from the thread of one event loop only.

    Args:
        limit: number of slots.
        on_change: called with the number of slots in use whenever that number changes.
    """

    def __init__(self, limit: int, on_change: Callable[[int], None] = lambda _: None) -> None:
        self.limit = limit
        self._on_change = on_change
        self.used = 0
        self.seconds = 0.1
        """Running mean of the seconds that the model needs per image."""

    @contextmanager
    def hold(self) -> Iterator[_HeldSlots]:
        """Hold one slot during the block. Yield an object that can add slots. Raises `QueueFullError`."""
        held = _HeldSlots(self)
        held.add(1)
        try:
            yield held
        finally:
            self.used -= held.count
            self._on_change(self.used)

    def record_batch(self, seconds: float, images: int) -> None:
        """Update the running mean with the seconds that a batch of `images` images took."""
        self.seconds += SMOOTHING * (seconds / images - self.seconds)

    @property
    def retry_after(self) -> int:
        """Expected seconds until all images now in the server are answered, from 1 to `MAX_RETRY_SECONDS`."""
        return min(MAX_RETRY_SECONDS, max(1, math.ceil(self.used * self.seconds)))


class _HeldSlots:
    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.count = 0

    def add(self, count: int) -> None:
        if self._slots.used + count > self._slots.limit:
            raise QueueFullError(self._slots.retry_after)
        self._slots.used += count
        self._slots._on_change(self._slots.used)
        self.count += count


@dataclass(eq=False, slots=True)
class _Job(Generic[I, O]):
    item: I
    key: object
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[O]
    arrived: float = field(default_factory=time.monotonic)

    def finish(self, outcome: O | BaseException) -> None:
        def set_outcome() -> None:
            if self.future.done():  # cancelled, because the client disconnected
                return
            if isinstance(outcome, BaseException):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

        self.loop.call_soon_threadsafe(set_outcome)


class Batcher(Generic[I, O]):
    """Run `work` on batches of items in a separate thread. `submit` is awaited in the event loop.

    Args:
        work: function from the items of a batch, which share one key, to the results in the same order. If `work`
            raises for a batch of several items, it is called again for each item alone, so that only the faulty item
            fails.
        key: function from an item to its key. Items share a batch only if their keys are equal.
        max_batch: maximum number of items of a batch.
        max_wait: maximum seconds that the first item of a batch waits for others while `coming()` is above 0.
        coming: function that returns the number of items still to be submitted by requests in progress. If it returns
            0, a batch starts at once.
        on_batch: called after each batch with its number of items and the seconds that it took.
    """

    def __init__(
        self,
        work: Callable[[Sequence[I]], Sequence[O]],
        *,
        key: Callable[[I], object],
        max_batch: int,
        max_wait: float,
        coming: Callable[[], int],
        on_batch: Callable[[int, float], None],
    ) -> None:
        self._work = work
        self._key = key
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._coming = coming
        self._on_batch = on_batch
        self._jobs: deque[_Job[I, O]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="retinanet-network", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish all submitted items, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def running(self) -> bool:
        """Whether `submit` accepts items."""
        return self._thread.is_alive() and not self._stopping

    async def submit(self, item: I) -> O:
        """Return the result of an item. An item whose `submit` is cancelled before its batch starts is dropped."""
        loop = asyncio.get_running_loop()
        job: _Job[I, O] = _Job(item=item, key=self._key(item), loop=loop, future=loop.create_future())
        with self._changed:
            if self._stopping:
                raise RuntimeError("the batcher has stopped and accepts no more items")
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
            self._on_batch(len(batch), time.perf_counter() - start)

    def _next(self) -> list[_Job[I, O]] | None:
        """Return the jobs of the next batch, or None when the batcher has stopped and no job is left."""
        with self._changed:
            while True:
                if not self._jobs:
                    if self._stopping:
                        return None
                    self._changed.wait()
                    continue
                first = self._jobs[0]
                batch = [job for job in self._jobs if job.key == first.key][: self._max_batch]
                left = first.arrived + self._max_wait - time.monotonic()
                # Jobs of another shape are waiting if the batch does not hold all jobs. Waiting would delay those.
                full = len(batch) == self._max_batch or len(batch) < len(self._jobs)
                if full or left <= 0 or self._stopping or self._coming() <= 0:
                    for job in batch:
                        self._jobs.remove(job)
                    return batch
                self._changed.wait(left)

    def _finish(self, batch: list[_Job[I, O]]) -> None:
        try:
            results = self._work([job.item for job in batch])
        except Exception as error:  # noqa: BLE001 - each runtime and driver raises its own exception types
            if len(batch) == 1:
                batch[0].finish(error)
                return
            log.warning("a batch of %d images failed (%s); each image is now processed alone", len(batch), error)
            for job in batch:
                self._finish([job])
            return
        for job, result in zip(batch, results, strict=True):
            job.finish(result)
