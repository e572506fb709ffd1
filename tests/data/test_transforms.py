"""Tests of augmentation: coloured rectangles are painted as objects, and their boxes must fit after each transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.config import AugmentConfig, ImageConfig
from retinanet.data import transforms
from retinanet.data.transforms import Scene
from tests.shared import num_examples

COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
NO_AUGMENTATION = AugmentConfig(flip=0.0)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_scene(width: int, height: int, boxes: list[list[int]], crowd: list[bool] | None = None) -> Scene:
    """Return a black image with a rectangle in each box: red, green and blue for labels 0, 1 and 2."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for color, (x1, y1, x2, y2) in zip(COLORS, boxes, strict=False):
        pixels[y1:y2, x1:x2] = color
    return Scene(
        image=Image.fromarray(pixels),
        boxes_G4=torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        labels_G=torch.arange(len(boxes)),
        crowd_G=torch.tensor(crowd or [False] * len(boxes), dtype=torch.bool),
    )


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Draw scenes of up to three boxes, one in each third of the width, so that boxes do not overlap."""
    third, height = draw(st.integers(8, 70)), draw(st.integers(8, 200))
    boxes = []
    for i in range(draw(st.integers(0, 3))):
        x1, x2 = sorted(draw(st.lists(st.integers(0, third), min_size=2, max_size=2, unique=True)))
        y1, y2 = sorted(draw(st.lists(st.integers(0, height), min_size=2, max_size=2, unique=True)))
        boxes.append([i * third + x1, y1, i * third + x2, y2])
    return make_scene(3 * third, height, boxes)


def colour_extent(image: Image.Image, label: int) -> tuple[float, ...] | None:
    """Return the xyxy extent of the pixels with at least half of the label's colour, or None if there are none."""
    ys, xs = np.nonzero(np.asarray(image)[:, :, label] >= 128)
    return (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None


def assert_boxes_fit(scene: Scene, tolerance: float) -> None:
    for box, label in zip(scene.boxes_G4.tolist(), scene.labels_G.tolist(), strict=True):
        extent = colour_extent(scene.image, label)
        if extent is None:  # a rectangle thinner than the resizing filter is too pale
            assert min(box[2] - box[0], box[3] - box[1]) <= 2 * tolerance
        else:
            np.testing.assert_allclose(box, extent, atol=tolerance)


def assert_valid(scene: Scene) -> None:
    boxes_G4 = scene.boxes_G4
    assert boxes_G4.dtype == torch.float64
    assert type(boxes_G4) is torch.Tensor
    assert torch.isfinite(boxes_G4).all()
    assert (boxes_G4[:, 2:] > boxes_G4[:, :2]).all()
    assert (boxes_G4 >= 0).all()
    assert (boxes_G4[:, 2:] <= torch.tensor(scene.image.size, dtype=torch.float64) + 1e-9).all()
    assert len(boxes_G4) == len(scene.labels_G) == len(scene.crowd_G)


@given(scenes(), st.integers(0, 2**63 - 1), st.floats(0.1, 1), st.booleans(), st.booleans())
@settings(max_examples=num_examples(150), deadline=None)
def test_crops_and_flips_are_exact(scene: Scene, seed: int, min_crop: float, flip: bool, vertical: bool) -> None:
    config = replace(NO_AUGMENTATION, flip=float(flip), vertical_flip=float(vertical), crop=1.0, min_crop=min_crop)
    out = transforms.augment(scene, config, generator(seed))
    assert_valid(out)
    assert_boxes_fit(out, tolerance=0)
    assert out.image.width >= min_crop * scene.image.width
    assert out.image.height >= min_crop * scene.image.height
    if len(scene.boxes_G4):  # at least one object is still complete
        before, after = ((s.boxes_G4[:, 2:] - s.boxes_G4[:, :2]).tolist() for s in (scene, out))
        assert any(before[label] == size for label, size in zip(out.labels_G.tolist(), after, strict=True))


@given(scenes(), st.integers(0, 2**63 - 1), st.integers(8, 300))
@settings(max_examples=num_examples(100), deadline=None)
def test_augmented_and_resized_boxes_stay_on_their_objects(scene: Scene, seed: int, image_size: int) -> None:
    config = AugmentConfig(flip=0.5, vertical_flip=0.5, crop=0.5, scale_jitter=(0.5, 2.0))
    numbers = generator(seed)
    size = transforms.jittered_size(image_size, config, numbers)
    assert 0.5 * image_size - 1 <= size <= 2 * image_size + 1
    image_config = ImageConfig(image_size=image_size, max_size=2 * image_size)
    out = transforms.resize(transforms.augment(scene, config, numbers), image_config, image_size=size)
    assert_valid(out)
    assert_boxes_fit(out, tolerance=2)
    sides = out.boxes_G4[:, 2:] - out.boxes_G4[:, :2]
    assert (sides >= 0.999).all()


@given(scenes(), st.integers(0, 1000))
@settings(max_examples=num_examples(20), deadline=None)
def test_augmentation_can_be_switched_off(scene: Scene, seed: int) -> None:
    numbers = generator(seed)
    assert transforms.jittered_size(300, NO_AUGMENTATION, numbers) == 300
    out = transforms.augment(scene, NO_AUGMENTATION, numbers)
    assert out is scene


def test_boxes_of_hand_worked_flips() -> None:
    scene = make_scene(60, 40, [[0, 5, 10, 20]])
    out = transforms.augment(scene, AugmentConfig(flip=1.0), generator(0))
    assert out.boxes_G4.tolist() == [[50, 5, 60, 20]]
    out = transforms.augment(scene, AugmentConfig(flip=0.0, vertical_flip=1.0), generator(0))
    assert out.boxes_G4.tolist() == [[0, 20, 10, 35]]


def crop(scene: Scene, numbers: list[float], min_crop: float = 0.5) -> Scene:
    return transforms.crop(scene, min_crop=min_crop, numbers=numbers)


def test_a_crop_drops_objects_by_their_centre_and_clips_the_rest() -> None:
    # Half of 100 x 100 pixels with object 0 inside, as far to the left and top as possible: pixels 0 to 50.
    boxes = [[10, 10, 20, 20], [40, 10, 58, 20], [44, 10, 60, 20], [70, 70, 90, 90]]
    out = crop(make_scene(100, 100, boxes), [0.0, 0.0, 0.0, 0.0, 0.0])
    assert out.image.size == (50, 50)
    assert out.labels_G.tolist() == [0, 1]  # centres at x = 15 and 49; dropped: 52 and 80
    assert out.boxes_G4.tolist() == [[10, 10, 20, 20], [40, 10, 50, 20]]


def test_crowd_regions_are_clipped_and_need_not_stay_complete() -> None:
    scene = make_scene(100, 100, [[0, 0, 90, 90], [60, 60, 70, 70]], crowd=[True, False])
    out = crop(scene, [0.0, 0.0, 0.0, 0.999, 0.999])
    assert out.labels_G.tolist() == [0, 1]
    assert out.crowd_G.tolist() == [True, False]
    assert out.boxes_G4.tolist() == [[0, 0, 40, 40], [10, 10, 20, 20]]
    far = make_scene(100, 100, [[80, 80, 100, 100], [0, 0, 10, 10]], crowd=[True, False])
    assert crop(far, [0.0] * 5).labels_G.tolist() == [1]  # the crowd region lies outside the crop


def test_a_large_object_enlarges_the_crop() -> None:
    out = crop(make_scene(100, 100, [[5, 0, 95, 100]]), [0.0, 0.0, 0.0, 0.5, 0.5])
    assert out.image.size == (90, 100)
    assert out.boxes_G4.tolist() == [[0, 0, 90, 100]]


def test_images_without_objects_are_cropped_anywhere() -> None:
    empty = make_scene(100, 100, [])
    pixels = np.asarray(empty.image).copy()
    pixels[99, 99] = 255
    for numbers, corner in (([0.0] * 5, 0), ([0.0, 0.0, 0.0, 0.999, 0.999], 255)):
        out = crop(replace(empty, image=Image.fromarray(pixels)), numbers)
        assert out.image.size == (50, 50)
        assert out.boxes_G4.shape == (0, 4)
        assert out.image.getpixel((49, 49)) == (corner,) * 3


@pytest.mark.parametrize(("side", "count"), [(1, 1), (2, 1)])
def test_resizing_drops_only_boxes_below_one_pixel(side: int, count: int) -> None:
    scene = make_scene(64, 64, [[63, 63, 64, 64]] if side == 1 else [[10, 10, 12, 12]])
    config = ImageConfig(image_size=64, max_size=64)
    assert len(transforms.resize(scene, config, image_size=64).boxes_G4) == count
    smaller = transforms.resize(scene, config, image_size=32)  # sides of 0.5 and 1 pixel
    assert len(smaller.boxes_G4) == (side == 2)


def test_max_size_grows_with_image_size() -> None:
    scene = make_scene(100, 80, [[10, 10, 20, 20]])
    config = ImageConfig(image_size=50, max_size=50)
    assert transforms.resize(scene, config, image_size=50).image.size == (50, 40)
    assert transforms.resize(scene, config, image_size=100).image.size == (100, 80)


def test_color_jitter_changes_pixels_and_not_boxes() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    scene = replace(make_scene(40, 30, [[1, 2, 20, 21]]), image=image)
    config = replace(NO_AUGMENTATION, color_jitter=0.4)
    outs = [transforms.augment(scene, config, generator(seed)) for seed in range(5)]
    assert len({out.image.tobytes() for out in outs}) == 5
    assert all(torch.equal(out.boxes_G4, scene.boxes_G4) for out in outs)
    # The number 1.0 gives the full strength 2 * 1 - 1 = 1: brightness times 1.4.
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    assert transforms.color_jitter(grey, 0.4, [1.0, 0.5, 0.5, 0.5]).getpixel((0, 0)) == (140, 140, 140)
    # The hue changes by at most a tenth of 360 degrees, which turns red into orange.
    red = transforms.color_jitter(Image.new("RGB", (4, 4), (255, 0, 0)), 1.0, [0.5, 0.5, 0.5, 1.0]).getpixel((0, 0))
    assert isinstance(red, tuple)
    assert red[0] == 255
    assert 140 < red[1] < 165


def test_the_random_numbers_of_a_step_do_not_depend_on_other_steps() -> None:
    """Colour jitter does not change which images are flipped, so runs with and without it stay comparable."""
    scene = make_scene(60, 40, [[0, 5, 10, 20]])
    flips: Callable[[AugmentConfig], list[bool]] = lambda config: [  # noqa: E731
        transforms.augment(scene, config, generator(seed)).boxes_G4[0, 0].item() > 25 for seed in range(40)
    ]
    plain = flips(AugmentConfig(flip=0.5))
    assert 10 < sum(plain) < 30
    assert flips(AugmentConfig(flip=0.5, color_jitter=0.2)) == plain


def test_augmentation_leaves_the_global_random_state_unchanged() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    config = AugmentConfig(flip=0.5, vertical_flip=0.5, color_jitter=0.5, crop=0.9, scale_jitter=(0.5, 2.0))
    transforms.augment(make_scene(60, 40, [[0, 5, 10, 20]]), config, generator(1))
    transforms.jittered_size(100, config, generator(1))
    assert torch.equal(torch.get_rng_state(), before)
