"""Batches of images and results per image."""

import threading

import pytest

from retinanet.images import ImageError
from retinanet.predict.batches import ImageResult, InputBatch, batched, load_ahead


def empty_batch(sources) -> InputBatch:
    return InputBatch(sources=sources, errors=[None] * len(sources), images=[], frames=[], decodable=[])


def test_batched_yields_lists_of_one_size_and_a_shorter_last_one():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []


@pytest.mark.parametrize("workers", [0, 1, 3, 9])
def test_batches_keep_their_order_with_any_number_of_workers(workers: int):
    another_batch_is_loaded = threading.Event()

    def load(sources) -> InputBatch:
        if sources == ["0"] and workers > 1:
            assert another_batch_is_loaded.wait(10)  # so that the first batch is never the first to be ready
        another_batch_is_loaded.set()
        return empty_batch(sources)

    batches = [[str(number)] for number in range(6)]
    assert [batch.sources for batch in load_ahead(batches, load, workers)] == batches


@pytest.mark.parametrize(("workers", "expected"), [(0, 1), (2, 3)])
def test_the_number_of_batches_loaded_ahead_is_limited(workers: int, expected: int):
    requested = []

    def batches():
        for number in range(100):
            requested.append(number)
            yield [str(number)]

    loaded_batches = load_ahead(batches(), empty_batch, workers)
    next(loaded_batches)
    assert len(requested) == expected
    loaded_batches.close()


def test_an_error_in_a_worker_is_raised_in_the_caller():
    def load(sources) -> InputBatch:
        raise OSError("disk failure")

    with pytest.raises(OSError, match="disk failure"):
        list(load_ahead([["a"]], load, 1))


def test_the_result_of_an_invalid_image_raises_its_error():
    with pytest.raises(ImageError, match="broken"):
        ImageResult(source="a.png", error=ImageError("broken")).result()
    with pytest.raises(RuntimeError, match="neither"):
        ImageResult(source="a.png").result()
