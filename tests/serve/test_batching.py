"""Places are bounded and freed; batches hold one shape; who fails, fails alone; who is gone is not looked at."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from retinanet.serve.batching import Batcher, FullError, Places


class Work:
    """Doubles numbers; waits for `gate` and notes the batches."""

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


def batcher(work: Work, *, max_batch: int = 4, max_wait: float = 0.0, coming: int = 0) -> Batcher[int, int]:
    made = Batcher(
        work,
        key=lambda item: item >= 100,
        max_batch=max_batch,
        max_wait=max_wait,
        coming=lambda: coming,
        done=lambda images, seconds: None,
    )
    made.start()
    return made


def test_what_waits_goes_together_up_to_the_limit_and_by_shape():
    async def run() -> None:
        work = Work()
        made = batcher(work)
        first = asyncio.create_task(made.submit(1))
        assert await asyncio.to_thread(work.started.wait, 10)  # alone: nothing else was there
        others = [asyncio.create_task(made.submit(item)) for item in (2, 100, 3, 4, 101, 5, 6)]
        await asyncio.sleep(0.05)
        work.gate.set()
        assert await first == 2
        assert await asyncio.gather(*others) == [4, 200, 6, 8, 202, 10, 12]
        assert work.batches == [[1], [2, 3, 4, 5], [100, 101], [6]]
        await asyncio.to_thread(made.stop)

    asyncio.run(run())


def test_the_first_waits_for_others_only_while_some_are_coming():
    async def run(coming: int) -> list[list[int]]:
        work = Work()
        work.gate.set()
        made = batcher(work, max_wait=5.0, max_batch=2, coming=coming)
        first = asyncio.create_task(made.submit(1))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(made.submit(2))
        assert [await first, await second] == [2, 4]
        await asyncio.to_thread(made.stop)
        return work.batches

    assert asyncio.run(run(coming=1)) == [[1, 2]]
    assert asyncio.run(run(coming=0)) == [[1], [2]]


def test_one_item_cannot_make_another_fail():
    async def run() -> None:
        work = Work()
        made = batcher(work)
        first = asyncio.create_task(made.submit(0))
        assert await asyncio.to_thread(work.started.wait, 10)
        tasks = [asyncio.create_task(made.submit(item)) for item in (1, 13, 2)]
        await asyncio.sleep(0.05)
        work.gate.set()
        found = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert [found[i] for i in (0, 1, 3)] == [0, 2, 4]
        assert isinstance(found[2], RuntimeError)
        await asyncio.to_thread(made.stop)

    asyncio.run(run())


def test_what_is_cancelled_is_not_looked_at_and_stopping_finishes_the_rest():
    async def run() -> None:
        work = Work()
        made = batcher(work, max_batch=1)
        tasks = [asyncio.create_task(made.submit(item)) for item in (1, 2, 3)]
        assert await asyncio.to_thread(work.started.wait, 10)
        tasks[1].cancel()
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(asyncio.to_thread(made.stop))
        await asyncio.sleep(0.05)
        assert not made.running
        with pytest.raises(RuntimeError):
            await made.submit(4)
        work.gate.set()
        assert [await tasks[0], await tasks[2]] == [2, 6]
        await stopping
        assert work.batches == [[1], [3]]

    asyncio.run(run())


def test_places():
    told: list[int] = []
    places = Places(3, told.append)
    with places.take() as held:
        held.add(1)
        with places.take(), pytest.raises(FullError) as full, places.take():
            pass
        with pytest.raises(FullError):
            held.add(2)
        assert places.taken == 2
    assert places.taken == 0
    assert told == [1, 2, 3, 2, 0]
    assert full.value.retry_after == 1
    for _ in range(200):
        places.worked(8.0, 2)
    with places.take() as held:
        held.add(2)
        assert places.retry_after == 12  # three images of four seconds each
