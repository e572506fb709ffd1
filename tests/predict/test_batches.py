"""Batches of images on their way through a detector."""

import threading

import pytest

from retinanet.images import ImageError
from retinanet.predict.batches import ImageResult, InputBatch, batched, load_ahead


def loaded(sources) -> InputBatch:
    return InputBatch(sources=sources, errors=[None] * len(sources), images_N3HW=None, frames=[])


def test_lists_of_a_size_the_last_one_shorter():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []


@pytest.mark.parametrize("workers", [0, 1, 3, 9])
def test_batches_come_in_their_order_however_many_workers_load_them(workers: int):
    second_may_end = threading.Event()

    def load(sources) -> InputBatch:
        if sources == ["0"] and workers > 1:
            assert second_may_end.wait(10)  # the first batch is the last to be ready
        second_may_end.set()
        return loaded(sources)

    batches = [[str(number)] for number in range(6)]
    assert [batch.sources for batch in load_ahead(batches, load, workers)] == batches


@pytest.mark.parametrize(("workers", "taken"), [(0, 1), (2, 3)])
def test_no_more_batches_are_taken_than_are_on_their_way(workers: int, taken: int):
    seen = []

    def batches():
        for number in range(100):
            seen.append(number)
            yield [str(number)]

    ahead = load_ahead(batches(), loaded, workers)
    next(ahead)
    assert len(seen) == taken
    ahead.close()


def test_an_error_of_a_worker_reaches_the_caller():
    def load(sources) -> InputBatch:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(load_ahead([["a"]], load, 1))


def test_the_result_of_an_image_that_does_not_decode_raises_its_error():
    with pytest.raises(ImageError, match="broken"):
        ImageResult(source="a.png", error=ImageError("broken")).result()
    with pytest.raises(RuntimeError, match="neither"):
        ImageResult(source="a.png").result()
