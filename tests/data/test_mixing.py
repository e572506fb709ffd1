"""Mosaic and mixup: hand-worked boxes and pixels, and the draws of further images."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.config import AugmentConfig, ImageConfig
from retinanet.data import DetectionDataset, SampleKey, mixing
from retinanet.data.combining import ImageCombiner
from retinanet.data.mixing import mixup, mosaic
from retinanet.data.transforms import Scene
from tests.data.helpers import noise_dataset, noise_scene

CONFIG = ImageConfig(image_size=48, max_size=64)
ALL = AugmentConfig(copy_paste=0.5, mosaic=0.5, mixup=0.5)


def plain(size: tuple[int, int], value: int, objects: list[list[float]]) -> Scene:
    """Return an image of one grey value, whose objects have this value as their class."""
    count = len(objects)
    return Scene(
        image=Image.new("RGB", size, (value,) * 3),
        boxes_G4=torch.tensor(objects, dtype=torch.float64).reshape(count, 4),
        labels_G=torch.full((count,), value),
        crowd_G=torch.zeros(count, dtype=torch.bool),
    )


def test_a_mosaic_holds_a_part_of_each_image_around_a_random_corner() -> None:
    """An object that covers its image covers its part, and shows less than 60 % of itself: it is ignored."""
    corners = set()
    for seed in range(30):
        parts = [(plain((80, 60), 50 * i, [[0, 0, 80, 60]]), 1.0) for i in range(1, 5)]
        result = mosaic(parts, size=(40, 30), rng=np.random.default_rng(seed))
        x, y = result.boxes_G4[0, 2:].int().tolist()
        assert 12 <= x <= 28
        assert 9 <= y <= 21
        expected = [[0, 0, x, y], [x, 0, 40, y], [0, y, x, 30], [x, y, 40, 30]]
        assert result.boxes_G4.tolist() == expected
        assert sorted(result.labels_G.tolist()) == [50, 100, 150, 200]
        assert result.crowd_G.all()
        pixels = np.array(result.image)
        for (x1, y1, x2, y2), value in zip(expected, result.labels_G.tolist(), strict=True):
            assert (pixels[y1:y2, x1:x2] == value).all()
        corners.add((x, y))
    assert len(corners) > 20


def test_boxes_of_a_mosaic_are_scaled_moved_clipped_or_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image of 20 x 20 pixels fills its part of 20 x 10 pixels at scale 1, as its rows r to r + 10.

    Of the object in rows 4 to 14, `visible` rows remain. It counts if these are at least 6 of 10 rows.
    """
    monkeypatch.setattr(mixing, "CENTRE", (0.5, 0.5))
    seen = Counter[bool]()
    for seed in range(20):
        parts = [(noise_scene((20, 20), [[2, 4, 12, 14]], seed=i), 1.0) for i in range(4)]
        result = mosaic(parts, size=(40, 20), rng=np.random.default_rng(seed))
        pixels = np.array(result.image)
        for (x1, y1, x2, y2), is_crowd in zip(result.boxes_G4.int().tolist(), result.crowd_G.tolist(), strict=True):
            assert (x1 % 20, x2 % 20) == (2, 12)
            assert is_crowd == (y2 - y1 < 6)
            left, top = x1 // 20 * 20, y1 // 10 * 10
            shift = 14 - (y2 - top) if y2 < top + 10 else 4 - (y1 - top)
            sources = [np.array(part.image)[shift : shift + 10] for part, _ in parts]
            assert any((pixels[top : top + 10, left : left + 20] == source).all() for source in sources)
            seen[is_crowd] += 1
    assert seen[True]
    assert seen[False]


def test_an_image_is_never_larger_in_a_mosaic_unless_it_must_fill_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is 20 x 20. A 40 x 40 image appears at 0.5 to 1 times its size, a 10 x 10 image at twice its size.

    A pixel of the last image is 4 pixels of the mosaic, so its 10 x 10 pixels appear at 0.5 to 1 times 40 x 40.
    """
    monkeypatch.setattr(mixing, "CENTRE", (0.5, 0.5))
    for size, ratio, low, high in (((40, 40), 1.0, 0.5, 1.0), ((10, 10), 1.0, 2.0, 2.0), ((10, 10), 4.0, 2.0, 4.0)):
        for seed in range(10):
            parts = [(noise_scene(size, [[4, 4, 6, 6]]), ratio)] * 4
            result = mosaic(parts, size=(40, 40), rng=np.random.default_rng(seed))
            whole = result.boxes_G4[~result.crowd_G]
            sides = (whole[:, 2:] - whole[:, :2])[:, 0] / 2
            assert (sides <= high * 1.05).all()
            assert (sides >= 0.6 * low * 0.95).all()


def test_mixup_keeps_the_objects_of_both_images_and_averages_their_pixels() -> None:
    weights = []
    for seed in range(40):
        first, second = plain((40, 30), 200, [[1, 2, 11, 12]]), plain((40, 30), 100, [[5, 5, 25, 25], [0, 0, 4, 4]])
        result = mixup(first, second, ratio=1.0, rng=np.random.default_rng(seed))
        assert result.boxes_G4.tolist() == [[1, 2, 11, 12], [5, 5, 25, 25], [0, 0, 4, 4]]
        assert result.labels_G.tolist() == [200, 100, 100]
        assert not result.crowd_G.any()
        pixels = np.array(result.image)
        assert (pixels == pixels[0, 0, 0]).all()
        weights.append((pixels[0, 0, 0] - 100) / 100)
    assert abs(np.mean(weights) - 0.5) < 4 * 0.121 / 40**0.5
    assert 0.06 < np.std(weights) < 0.2, "sqrt(1 / (4 (2 x 8 + 1))) = 0.121"


def test_mixup_of_images_of_other_sizes() -> None:
    """20 x 50 pixels at ratio 1 cover 20 x 30 pixels of the first image, and the rows r to r + 30 of the second."""
    places = set()
    for seed in range(20):
        result = mixup(plain((40, 30), 200, []), plain((20, 50), 100, [[0, 0, 20, 50]]), ratio=1.0, rng=rng(seed))
        ((x1, y1, x2, y2),) = result.boxes_G4.int().tolist()
        assert (x2 - x1, y1, y2) == (20, 0, 30)
        assert not result.crowd_G.item(), "60 % of the object is visible"
        pixels = np.array(result.image)[:, :, 0]
        assert (pixels[:, x1:x2] < 200).all()
        assert (np.delete(pixels, np.s_[x1:x2], axis=1) == 200).all()
        places.add(x1)
    assert len(places) > 5
    cut = mixup(plain((40, 30), 200, []), plain((20, 51), 100, [[0, 0, 20, 51]]), ratio=1.0, rng=rng(0))
    assert cut.crowd_G.item()
    larger = mixup(plain((40, 30), 200, []), plain((10, 10), 100, [[0, 0, 10, 5]]), ratio=2.0, rng=rng(0))
    assert (larger.boxes_G4[0, 2:] - larger.boxes_G4[0, :2]).tolist() == [20, 10]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_further_images_are_drawn_in_proportion_to_the_sampler(tmp_path: Path) -> None:
    data = noise_dataset(tmp_path, [[0], [1], [2], []])
    combiner = ImageCombiner(data=data, augment=ALL, image_config=CONFIG, expected_draws=np.array([1.0, 3, 2, 1]))
    for index, shares in ((0, [0, 3 / 6, 2 / 6, 1 / 6]), (1, [1 / 4, 0, 2 / 4, 1 / 4]), (3, [1 / 6, 3 / 6, 2 / 6, 0])):
        generator = rng(index)
        drawn = np.bincount([combiner._other_image(index, generator) for _ in range(2000)], minlength=4) / 2000
        for frequency, share in zip(drawn, shares, strict=True):
            assert abs(frequency - share) <= 4 * (share * (1 - share) / 2000) ** 0.5


def test_the_most_images_of_a_sample() -> None:
    most = [
        AugmentConfig(**options).most_images for options in ({}, {"mosaic": 0.1}, {"mixup": 0.1}, {"copy_paste": 1})
    ]
    assert most == [1, 4, 2, 1]
    assert AugmentConfig(mosaic=1, mixup=1).most_images == 5
    assert AugmentConfig(mosaic=1, mixup=1, augment=False).most_images == 1


@pytest.mark.parametrize("option", ["mosaic", "mixup"])
def test_each_option_changes_all_or_no_samples(tmp_path: Path, option: str) -> None:
    data = noise_dataset(tmp_path, [[0], [1], [2], []])
    off = DetectionDataset(data=data, image_config=CONFIG, augment=AugmentConfig(flip=0))
    on = DetectionDataset(data=data, image_config=CONFIG, augment=AugmentConfig(flip=0, **{option: 1.0}))
    none = DetectionDataset(data=data, image_config=CONFIG, augment=AugmentConfig(augment=False, **{option: 1.0}))
    for seed in range(6):
        key = SampleKey(seed % 4, seed, 48)
        before, after = off[key], on[key]
        assert before.frame == after.frame
        assert not torch.equal(before.pixels_3HW, after.pixels_3HW)
        for unchanged in (none[key], on[key._replace(combine=False)]):
            assert torch.equal(unchanged.pixels_3HW, before.pixels_3HW)
            assert torch.equal(unchanged.target.boxes_G4, before.target.boxes_G4)


def test_a_dataset_of_one_image_is_left_as_it_is(tmp_path: Path) -> None:
    data = noise_dataset(tmp_path, [[0, 1]])
    config = AugmentConfig(flip=0, copy_paste=1, mosaic=1, mixup=1)
    on = DetectionDataset(data=data, image_config=CONFIG, augment=config)
    assert torch.equal(on[SampleKey(0, 3, 48)].pixels_3HW, on[0].pixels_3HW)


@pytest.mark.parametrize("options", [{}, {"crop": 1.0}])
def test_images_of_other_sizes_combine_at_the_size_of_the_input(tmp_path: Path, options: dict[str, float]) -> None:
    """An object of 10 x 12 pixels is 15 x 18 in the input in an image of 32 pixels, and 10 x 12 in one of 48 pixels.

    Before a crop, images have their original pixels.
    """
    small, large = noise_dataset(tmp_path / "s", [[0]], size=(48, 32)), noise_dataset(tmp_path / "l", [[]])
    data = replace(small, records=small.records + large.records)
    config = AugmentConfig(flip=0, mixup=1, min_crop=1.0, **options)
    dataset = DetectionDataset(data=data, image_config=ImageConfig(image_size=48, max_size=72), augment=config)
    for seed in range(4):
        (box,) = dataset[SampleKey(1, seed, 48)].target.boxes_G4
        assert box[2] - box[0] == pytest.approx(15, abs=0.5) or box[0] == 0
        assert box[3] - box[1] == pytest.approx(18, abs=0.5)
