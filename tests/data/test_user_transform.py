"""A transform of the user's own: where it is applied, how it is seeded, and what is refused."""

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
from tests.data.made_transforms import apply, pixels

IMAGES = ImageConfig(image_size=64, max_size=96)


def noise(sample: TrainingSample) -> TrainingSample:
    """Draw from the global generators, as many transforms do."""
    shift = random.randrange(50) + np.random.randint(50) + int(torch.randint(50, ()))  # noqa: NPY002
    return replace(sample, image_HW3=sample.image_HW3 + np.uint8(shift))


def test_the_seed_decides_and_global_generators_keep_their_state() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    first, again, other = (np.asarray(apply(noise, seed).image) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002


def test_a_transform_with_a_generator_of_its_own_is_seeded() -> None:
    class Own:
        def set_random_seed(self, seed: int) -> None:
            self.generator = np.random.default_rng(seed)

        def __call__(self, sample: TrainingSample) -> TrainingSample:
            return replace(sample, image_HW3=sample.image_HW3 + self.generator.integers(1, 200, dtype=np.uint8))

    transform = Own()
    first, other, again = (np.asarray(apply(transform, seed).image) for seed in (1, 2, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_dropped_objects_are_gone_and_crowd_flags_follow() -> None:
    found = apply(lambda sample: sample.keep(sample.is_crowd_G))
    assert found.boxes_G4.tolist() == [[25, 5, 38, 28]]
    assert found.labels_G.tolist() == [1]
    assert found.crowd_G.tolist() == [True]
    none = apply(lambda sample: sample.keep(np.zeros(2, bool)))
    assert none.boxes_G4.shape == (0, 4)


def test_a_box_that_rounding_puts_outside_is_clipped() -> None:
    def shift(sample: TrainingSample) -> TrainingSample:
        return replace(sample, boxes_G4=sample.boxes_G4 + np.array([0, 0, 2.004, 0]))

    assert apply(shift).boxes_G4[1].tolist() == [25, 5, 40, 28]


@pytest.mark.parametrize(
    ("change", "says"),
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
def test_a_bad_result_names_the_transform_and_the_image(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"transform my:transform on a.png: .*{says}"):
        apply(lambda sample: replace(sample, **change))


def test_another_type_and_an_exception_name_the_transform_too() -> None:
    with pytest.raises(DataError, match="expected a TrainingSample, found dict"):
        apply(lambda sample: {})
    with pytest.raises(KeyError) as caught:
        apply(lambda sample: {}["missing"])
    assert caught.value.__notes__ == ["raised by transform my:transform on a.png"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nothing", "the form package.module:Name"),
        ("no_such_package.module:factory", "no module 'no_such_package'"),
        ("tests.data.test_user_transform:flipp", "Did you mean 'flip'"),
        ("tests.data.test_user_transform:not_callable", "returns a callable"),
    ],
)
def test_a_name_that_cannot_be_loaded_is_refused(spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_transform(spec)


def not_callable() -> int:
    return 3


def flip() -> Any:
    """The factory of a transform that flips every image, with a brightness drawn at random."""

    def transform(sample: TrainingSample) -> TrainingSample:
        height, width = sample.image_HW3.shape[:2]
        assert (height, width) == (64, 96), "the original's pixels"
        boxes_G4 = sample.boxes_G4.copy()
        boxes_G4[:, [0, 2]] = width - boxes_G4[:, [2, 0]]
        brighter = sample.image_HW3[:, ::-1] // 2 + np.uint8(np.random.randint(100))  # noqa: NPY002
        return replace(sample, image_HW3=brighter, boxes_G4=boxes_G4)

    return transform


def test_in_a_dataset_after_our_own_augmentation(squares: tuple[Path, Path]) -> None:
    """By name and as an object; workers change nothing; evaluation samples are left alone."""
    data = load(squares[0])
    spec = "tests.data.test_user_transform:flip"
    named = DetectionDataset(data=data, image_config=IMAGES, augment=AugmentConfig(augment=False, transform=spec))
    given = DetectionDataset(data=data, image_config=IMAGES, transform=flip())
    plain = DetectionDataset(data=data, image_config=IMAGES)
    for first, second, third in zip(pixels(named, 0), pixels(named, 2), pixels(given, 0), strict=True):
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first, third)
    copied = pickle.loads(pickle.dumps(named))  # noqa: S301
    for first, second in zip(pixels(named, 0), pixels(copied, 0), strict=True):
        np.testing.assert_array_equal(first, second)
    key = SampleKey(0, 5, 64)
    width = data.records[0].width
    flipped_G4, boxes_G4 = named[key].target.boxes_G4, plain[key].target.boxes_G4
    torch.testing.assert_close(flipped_G4[:, 0], width - boxes_G4[:, 2])
    np.testing.assert_array_equal(named[0].pixels_3HW, plain[0].pixels_3HW)
    own = DetectionDataset(data=data, image_config=IMAGES, augment=AugmentConfig(flip=1.0, transform=spec))
    torch.testing.assert_close(own[key].target.boxes_G4, boxes_G4), "flipped twice"
    assert transform_seed(5) != transform_seed(6)
