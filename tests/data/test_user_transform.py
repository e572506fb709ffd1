"""Tests of custom transforms: loading, seeding, their place in the dataset, and invalid results."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinanet.config import AugmentConfig, ImageConfig
from retinanet.data import DetectionDataset, SampleKey, TrainingSample, load
from retinanet.data.user_transform import load_transform, transform_seed
from retinanet.errors import ConfigError
from retinanet.formats.records import DataError
from tests.data.transform_helpers import apply, load_pixels

IMAGES = ImageConfig(image_size=64, max_size=96)


def noise(sample: TrainingSample) -> TrainingSample:
    """Change the brightness by numbers from the global generators, which many transforms use."""
    shift = random.randrange(50) + np.random.randint(50) + int(torch.randint(50, ()))  # noqa: NPY002
    return replace(sample, image_HW3=sample.image_HW3 + np.uint8(shift))


def test_the_result_depends_only_on_the_seed_and_global_generators_keep_their_state() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    first, again, other = (np.asarray(apply(noise, seed).image) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


def test_a_transform_with_its_own_generator_is_seeded() -> None:
    class SeededTransform:
        def set_random_seed(self, seed: int) -> None:
            self.generator = np.random.default_rng(seed)

        def __call__(self, sample: TrainingSample) -> TrainingSample:
            return replace(sample, image_HW3=sample.image_HW3 + self.generator.integers(1, 200, dtype=np.uint8))

    transform = SeededTransform()
    first, other, again = (np.asarray(apply(transform, seed).image) for seed in (1, 2, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_transform_can_drop_objects() -> None:
    crowd_only = apply(lambda sample: sample.keep(sample.is_crowd_G))
    assert crowd_only.boxes_G4.tolist() == [[25, 5, 38, 28]]
    assert crowd_only.labels_G.tolist() == [1]
    assert crowd_only.crowd_G.tolist() == [True]
    empty = apply(lambda sample: sample.keep(np.zeros(2, bool)))
    assert empty.boxes_G4.shape == (0, 4)


def test_a_box_slightly_outside_the_image_is_clipped() -> None:
    def shift(sample: TrainingSample) -> TrainingSample:
        return replace(sample, boxes_G4=sample.boxes_G4 + np.array([0, 0, 2.004, 0]))

    assert apply(shift).boxes_G4[1].tolist() == [25, 5, 40, 28]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes_G4": np.array([[0.0, 0, np.nan, 5], [0, 0, 9, 9]])}, "finite"),
        ({"boxes_G4": np.array([[0.0, 0, 41, 5], [0, 0, 9, 9]])}, r"in the image, 40x30 pixels, found box 0 \[0"),
        ({"boxes_G4": np.array([[0.0, 0, 9, 9], [5, 5, 5, 9]])}, "x1 < x2 and y1 < y2, found box 1"),
        ({"boxes_G4": np.zeros((1, 4))}, r"found \(1, 4\), \(2,\) and \(2,\)"),
        ({"boxes_G4": [[0.0, 0, 9, 9]]}, "boxes_G4 must be a numpy array, found list"),
        ({"labels_G": np.array([0, 2])}, "from 0 to 1, found 0 to 2"),
        ({"labels_G": np.array([0.0, 1.0])}, "labels_G must be integers"),
        ({"image_HW3": np.zeros((30, 40, 3), np.float32)}, "must be uint8"),
        ({"image_HW3": np.zeros((3, 30, 40), np.uint8)}, "of shape"),
    ],
)
def test_the_error_of_an_invalid_result_names_the_transform_and_the_image(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"transform my:transform on a.png: .*{message}"):
        apply(lambda sample: replace(sample, **change))


def test_errors_of_a_wrong_type_and_of_an_exception_name_the_transform() -> None:
    with pytest.raises(DataError, match="expected a TrainingSample, found dict"):
        apply(lambda sample: {})
    with pytest.raises(KeyError) as caught:
        apply(lambda sample: {}["missing"])
    assert caught.value.__notes__ == ["raised by transform my:transform on a.png"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "the form package.module:Name"),
        ("no_such_package.module:factory", "no module 'no_such_package'"),
        ("tests.data.test_user_transform:flipp", "Did you mean 'flip'"),
        ("tests.data.test_user_transform:not_callable", "returns a callable"),
    ],
)
def test_a_transform_that_cannot_be_loaded_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_transform(spec)


def not_callable() -> int:
    return 3


def flip() -> Any:
    """Return a transform that flips every image and draws a random brightness."""

    def transform(sample: TrainingSample) -> TrainingSample:
        height, width = sample.image_HW3.shape[:2]
        assert (height, width) == (64, 96), "the transform gets original pixels"
        boxes_G4 = sample.boxes_G4.copy()
        boxes_G4[:, [0, 2]] = width - boxes_G4[:, [2, 0]]
        brighter = sample.image_HW3[:, ::-1] // 2 + np.uint8(np.random.randint(100))  # noqa: NPY002
        return replace(sample, image_HW3=brighter, boxes_G4=boxes_G4)

    return transform


def test_a_dataset_applies_the_transform_after_augmentation(squares: tuple[Path, Path]) -> None:
    """The transform is given by name or as an object. Workers change nothing, evaluation samples stay unchanged."""
    data = load(squares[0])
    spec = "tests.data.test_user_transform:flip"
    named = DetectionDataset(data=data, image_config=IMAGES, augment=AugmentConfig(augment=False, transform=spec))
    from_object = DetectionDataset(data=data, image_config=IMAGES, transform=flip())
    plain = DetectionDataset(data=data, image_config=IMAGES)
    pixels = load_pixels(named, 0)
    for first, second, third in zip(pixels, load_pixels(named, 2), load_pixels(from_object, 0), strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
    copied = pickle.loads(pickle.dumps(named))  # noqa: S301
    for first, second in zip(pixels, load_pixels(copied, 0), strict=True):
        np.testing.assert_array_equal(first, second)
    key = SampleKey(0, 5, 64)
    width = data.records[0].width
    flipped_G4, boxes_G4 = named[key].target.boxes_G4, plain[key].target.boxes_G4
    torch.testing.assert_close(flipped_G4[:, 0], width - boxes_G4[:, 2])
    np.testing.assert_array_equal(named[0].pixels_3HW, plain[0].pixels_3HW)
    flipped_twice = DetectionDataset(data=data, image_config=IMAGES, augment=AugmentConfig(flip=1.0, transform=spec))
    torch.testing.assert_close(flipped_twice[key].target.boxes_G4, boxes_G4)
    assert transform_seed(5) != transform_seed(6)
