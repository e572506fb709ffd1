"""Test batching: slots are limited and freed, batches have one shape, failed and cancelled items affect no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from retinanet.serve.batching import Batcher, QueueFullError, Slots


class Work:
    """Double each number, after waiting for `gate`, and record the batches. A batch with 13 fails."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.started = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.started.set()
        assert self.gate.wait(10)
        self.batches.append(list(items))
        if 13 in items:
            raise RuntimeError("thirteen")
        return [2 * item for item in items]


def started_batcher(work: Work, *, max_batch: int = 4, max_wait: float = 0.0, coming: int = 0) -> Batcher[int, int]:
    started = Batcher(
        work,
        key=lambda item: item >= 100,
        max_batch=max_batch,
        max_wait=max_wait,
        coming=lambda: coming,
        on_batch=lambda images, seconds: None,
    )
    started.start()
    return started


def test_waiting_items_share_a_batch_up_to_the_limit_and_by_shape():
    async def run() -> None:
        work = Work()
        batcher = started_batcher(work)
        first = asyncio.create_task(batcher.submit(1))
        assert await asyncio.to_thread(work.started.wait, 10)  # the first item runs alone: no other was waiting
        others = [asyncio.create_task(batcher.submit(item)) for item in (2, 100, 3, 4, 101, 5, 6)]
        await asyncio.sleep(0.05)
        work.gate.set()
        assert await first == 2
        assert await asyncio.gather(*others) == [4, 200, 6, 8, 202, 10, 12]
        assert work.batches == [[1], [2, 3, 4, 5], [100, 101], [6]]
        await asyncio.to_thread(batcher.stop)

    asyncio.run(run())


def test_a_batch_waits_for_more_items_only_while_some_are_coming():
    async def run(coming: int) -> list[list[int]]:
        work = Work()
        work.gate.set()
        batcher = started_batcher(work, max_wait=5.0, max_batch=2, coming=coming)
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batcher.submit(2))
        assert [await first, await second] == [2, 4]
        await asyncio.to_thread(batcher.stop)
        return work.batches

    assert asyncio.run(run(coming=1)) == [[1, 2]]
    assert asyncio.run(run(coming=0)) == [[1], [2]]


def test_a_failing_item_does_not_fail_the_others_of_its_batch():
    async def run() -> None:
        work = Work()
        batcher = started_batcher(work)
        first = asyncio.create_task(batcher.submit(0))
        assert await asyncio.to_thread(work.started.wait, 10)
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 13, 2)]
        await asyncio.sleep(0.05)
        work.gate.set()
        results = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [results[i] for i in (0, 1, 3)] == [0, 2, 4]
        assert isinstance(results[2], RuntimeError)
        await asyncio.to_thread(batcher.stop)

    asyncio.run(run())


def test_a_cancelled_item_is_dropped_and_stop_finishes_the_others():
    async def run() -> None:
        work = Work()
        batcher = started_batcher(work, max_batch=1)
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
        assert await asyncio.to_thread(work.started.wait, 10)
        tasks[1].cancel()
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(asyncio.to_thread(batcher.stop))
        await asyncio.sleep(0.05)
        assert not batcher.running
        with pytest.raises(RuntimeError):
            await batcher.submit(4)
        work.gate.set()
        assert [await tasks[0], await tasks[2]] == [2, 6]
        await stopping
        assert work.batches == [[1], [3]]

    asyncio.run(run())


def test_slots_are_limited_and_freed():
    changes: list[int] = []
    slots = Slots(3, changes.append)
    with slots.hold() as held:
        held.add(1)
        with slots.hold(), pytest.raises(QueueFullError) as full, slots.hold():
            pass
        with pytest.raises(QueueFullError):
            held.add(2)
        assert slots.used == 2
    assert slots.used == 0
    assert changes == [1, 2, 3, 2, 0]
    assert full.value.retry_after == 1
    for _ in range(200):
        slots.record_batch(8.0, 2)
    with slots.hold() as held:
        held.add(2)
        assert slots.retry_after == 12  # three images, four seconds each
