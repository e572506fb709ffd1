"""Tests of the samplers: repeat factors and balanced draws with hand-worked numbers, and the images of each epoch."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.config import SamplingConfig, TileConfig
from retinanet.data import DetectionData, EpochSampling, TrainBatchSampler, cut_into_tiles
from retinanet.data.sampling import ImageClasses, automatic_threshold, balanced_weights, draw_images, repeat_factors
from tests.analysis.datasets import dataset_from_boxes
from tests.shared import num_examples

BOX = (10, 10, 60, 60)


def dataset(images: list[list[int]], *, crowds: list[list[int]] | None = None, classes: int = 4) -> DetectionData:
    """Return a dataset; each image is a list of the classes of its objects. `crowds` lists its crowd regions."""
    crowds = crowds or [[] for _ in images]
    rows = [
        [(k, *BOX) for k in labels] + [(k, *BOX, True) for k in regions]
        for labels, regions in zip(images, crowds, strict=True)
    ]
    data: DetectionData = dataset_from_boxes(rows, classes=[f"c{k}" for k in range(classes)])
    return data


def sampling(data: DetectionData, sampler: str, threshold: float = 0.0) -> EpochSampling:
    return EpochSampling.of(data, SamplingConfig(sampler=sampler, repeat_threshold=threshold))  # type: ignore[arg-type]


def batch_sampler(data: DetectionData, sampler: str, **options: object) -> TrainBatchSampler:
    records, defaults = data.records, {"batch_size": 4, "seed": 0, "image_size": 100}
    sides = {"widths": [r.width for r in records], "heights": [r.height for r in records]}
    return TrainBatchSampler(**sides, expected_draws=sampling(data, sampler).draws_N, **(defaults | options))


image_lists = st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=40)
samplers = st.sampled_from(["natural", "repeat_factor", "balanced"])


def test_repeat_factors_by_hand() -> None:
    """16 images. f(0) = 12/16, f(1) = 4/16, f(2) = 1/16; with t = 1/4 the factors are 1, 1 and 2."""
    contained = ImageClasses.of(dataset([[0]] * 11 + [[0, 2, 2], [1], [1], [1], [1]]))
    assert contained.images_K.tolist() == [12, 4, 1, 0]
    assert repeat_factors(contained, threshold=1 / 4).tolist() == [1.0] * 11 + [2.0] + [1.0] * 4
    # t = 1: sqrt(16 / 12), sqrt(16 / 4), sqrt(16 / 1)
    assert repeat_factors(contained, threshold=1).tolist() == [math.sqrt(4 / 3)] * 11 + [4.0] + [2.0] * 4
    assert repeat_factors(contained, threshold=0.001).tolist() == [1.0] * 16


def test_the_length_is_the_sum_of_the_repeat_factors_rounded_up() -> None:
    """11 sqrt(4/3) + 4 + 8 = 24.70, so that an epoch has 25 images and each factor is multiplied by 25 / 24.70."""
    epoch = sampling(dataset([[0]] * 11 + [[0, 2, 2], [1], [1], [1], [1]]), "repeat_factor", 1.0)
    assert epoch.images_per_epoch == 25
    assert epoch.draws_N[11] == pytest.approx(4 * 25 / (11 * math.sqrt(4 / 3) + 12))
    assert sampling(dataset([[0]] * 15 + [[1]]), "repeat_factor", 1 / 4).images_per_epoch == 17  # 15 + sqrt(16 / 4)


def test_the_automatic_threshold_by_hand() -> None:
    """Eight of ten images have objects, of four classes: 0.8 / 4. With one class, no class is rare."""
    assert automatic_threshold(ImageClasses.of(dataset([[0]] * 5 + [[1], [2], [3], [], []]))) == pytest.approx(0.2)
    one_class = ImageClasses.of(dataset([[0, 0], [0], [], [], []]))
    assert automatic_threshold(one_class) == pytest.approx(0.4)
    assert repeat_factors(one_class, threshold=automatic_threshold(one_class)).tolist() == [1.0] * 5


@given(image_lists)
@settings(max_examples=num_examples(150), deadline=None)
def test_the_automatic_threshold_adds_at_most_a_quarter_of_the_images(images: list[list[int]]) -> None:
    contained = ImageClasses.of(dataset(images))
    assert repeat_factors(contained, threshold=automatic_threshold(contained)).sum() <= 1.25 * len(images) + 1e-9


def test_balanced_draws_by_hand() -> None:
    """Two of eight images are empty and are drawn once. Three classes share the other six draws: two draws each."""
    contained = ImageClasses.of(dataset([[0], [0], [0], [0, 1], [1, 1], [2], [], []]))
    # Class 0 has four images, class 1 two and class 2 one. Class 3 has no objects and gets no draws.
    assert balanced_weights(contained).tolist() == [0.5, 0.5, 0.5, 0.5 + 1.0, 1.0, 2.0, 1.0, 1.0]


def test_crowd_regions_do_not_count() -> None:
    images, crowds = [[0], [0], [0], []], [[1], [], [1], [1]]
    for name in ("repeat_factor", "balanced"):
        assert sampling(dataset(images, crowds=crowds), name).draws_N.tolist() == [1.0] * 4
    per_class = sampling(dataset(images, crowds=crowds), "natural").to_dict()["per_class"]
    assert (per_class["c0"]["objects"], per_class["c1"]["images"], per_class["c1"]["objects"]) == (3, 0, 0)


def test_tiles_are_drawn_on_their_own() -> None:
    """An object at the left end of a wide image repeats its tile and the whole image, not the empty tiles."""
    data = dataset_from_boxes([[(0, 5, 5, 95, 95)]] + [[(1, 5, 5, 95, 95)]] * 7, size=(400, 100))
    tiles = cut_into_tiles(data, TileConfig(tile=100, overlap=0.0)).data
    draws = sampling(tiles, "balanced").draws_N.reshape(8, 5)  # four tiles and the whole image
    assert draws[0].tolist() == pytest.approx([4, 1, 1, 1, 4])  # 16 of 40 records have objects: 8 draws per class
    assert draws[1].tolist() == pytest.approx([4 / 7, 1, 1, 1, 4 / 7])


def test_numbers_and_sentence_of_the_run_folder() -> None:
    numbers = sampling(
        dataset([[0]] * 11 + [[0, 2, 2], [1], [1], [1], [1]], classes=3), "repeat_factor", 1 / 4
    ).to_dict()
    assert numbers.pop("sentence") == (
        "sampler repeat_factor with threshold 0.25: 17 images per epoch, 16 in the data. Expected images (objects) of "
        "each class per epoch: c2 2 (4), c1 4 (4), c0 13 (13)"
    )
    rare = {"images": 1, "objects": 2, "images_per_epoch": 2.0, "objects_per_epoch": 4.0}
    assert numbers.pop("per_class")["c2"] == rare
    assert numbers == {"sampler": "repeat_factor", "repeat_threshold": 0.25, "images": 16, "images_per_epoch": 17}


@given(image_lists, samplers, st.integers(0, 2**32))
@settings(max_examples=num_examples(200), deadline=None)
def test_every_draw_rounds_the_expected_number_up_or_down(images: list[list[int]], name: str, seed: int) -> None:
    epoch = sampling(dataset(images), name)
    draws = draw_images(epoch.draws_N, np.random.default_rng(seed))
    assert len(draws) == epoch.images_per_epoch
    counts = np.bincount(draws, minlength=len(images))
    assert (counts >= np.floor(epoch.draws_N)).all()
    assert (counts <= np.floor(epoch.draws_N) + 1).all()
    if name != "balanced":
        assert counts.min() >= 1
        assert len(draws) <= math.ceil(1.25 * len(images))
    else:
        assert len(draws) == len(images)


def test_draws_have_the_expected_mean() -> None:
    """The count of an image with fraction f has the standard deviation sqrt(f (1 - f)), below 0.5."""
    draws_N = np.array([0.3, 1.0, 2.25, 0.05, 0.9, 1.5])
    rng = np.random.default_rng(0)
    mean = np.mean([np.bincount(draw_images(draws_N, rng), minlength=6) for _ in range(2000)], axis=0)
    assert mean == pytest.approx(draws_N, abs=5 * 0.5 / math.sqrt(2000))
    assert mean[1] == 1.0


@given(image_lists, samplers, st.integers(1, 5), st.integers(1, 4), st.integers(-3, 2**64), st.integers(0, 9))
@settings(max_examples=num_examples(60), deadline=None)
def test_ranks_share_the_draws_of_an_epoch(
    images: list[list[int]], name: str, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    data = dataset(images)
    options = {"batch_size": batch_size, "seed": seed, "world_size": world_size}
    ranks = [batch_sampler(data, name, rank=r, **options) for r in range(world_size)]
    length = sampling(data, name).images_per_epoch
    keys = []
    for rank in ranks:
        rank.set_epoch(epoch)
        batches = list(rank)
        assert len(batches) == len(rank) == math.ceil(math.ceil(length / batch_size) / world_size)
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        rank.set_epoch(epoch, skip=len(batches) // 2)
        assert list(rank) == batches[len(batches) // 2 :]
        assert rank.all_batches() == batches
        keys += [key for batch in batches for key in batch]
    assert len({key.seed for key in keys}) == len(keys), "a repeated image has another augmentation"
    if length >= world_size * ranks[0].batches_per_epoch:  # enough images for all batches
        expected = draw_images(ranks[0].draws_N, ranks[0]._rng(epoch, 2))
        assert Counter(key.index for key in keys) == Counter(expected.tolist())


@pytest.mark.parametrize("name", ["repeat_factor", "balanced"])
def test_without_a_rare_class_the_batches_are_those_of_natural(name: str) -> None:
    data = dataset([[0, 1], [1, 0, 0], [0, 1, 1], [], [0, 1]] * 5)
    batches, natural = batch_sampler(data, name), batch_sampler(data, "natural")
    for epoch in range(3):
        batches.set_epoch(epoch)
        natural.set_epoch(epoch)
        assert list(batches) == list(natural)


def test_epochs_draw_other_images_in_equally_many_batches() -> None:
    batches = batch_sampler(dataset([[0]] * 40 + [[1]] * 3 + [[2]] * 2), "balanced")
    drawn = []
    for epoch in range(5):
        batches.set_epoch(epoch)
        drawn.append(sorted(key.index for batch in batches for key in batch))
        assert len(drawn[-1]) == 45
    assert len({tuple(images) for images in drawn}) == 5
    again = batch_sampler(dataset([[0]] * 40 + [[1]] * 3 + [[2]] * 2), "balanced")
    again.set_epoch(4)
    assert list(again) == list(batches)


@pytest.mark.parametrize("draws", [[1.0, 1.0], [1.0, 1.0, 0.5]])
def test_expected_draws_that_do_not_fit_are_refused(draws: list[float]) -> None:
    with pytest.raises(ValueError, match="expected_draws must hold 3 numbers whose sum is a whole number, found"):
        TrainBatchSampler(widths=[8] * 3, heights=[8] * 3, batch_size=1, seed=0, image_size=8, expected_draws=draws)
