"""Copy-paste: hand-worked geometry, no paste onto an object, frequencies of classes, pixels and soft edges."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet import boxes
from retinanet.config import AugmentConfig, ImageConfig, TileConfig, ValueRangeConfig
from retinanet.data import DetectionDataset, SampleKey, copy_paste, cut_into_tiles
from retinanet.data.copy_paste import MAX_PASTES, PasteSources, paste
from retinanet.data.transforms import Scene, visible_objects
from tests.data.helpers import noise_dataset, noise_scene
from tests.shared import num_examples

CONFIG = ImageConfig(image_size=48, max_size=64)


def pasted(source: Scene, target: Scene, index: int = 0, *, seed: int = 0, flip: float = 0.0) -> Scene:
    return paste(target, source, index, ratio=1.0, input_scale=1.0, flip=flip, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_box_holds_the_pixels_of_the_object_and_the_edges_fade_out(
    flip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 20 x 10 object has a context of 2 pixels: the opacities 1/4 and 3/4 of the pixel centres 0.5 and 1.5."""
    monkeypatch.setattr(copy_paste, "SCALES", (1.0, 1.0))
    source, target = noise_scene((40, 30), [[5, 6, 25, 16]], seed=1), noise_scene((60, 50), [], seed=2)
    result = pasted(source, target, flip=flip)
    x1, y1, x2, y2 = (int(value) for value in result.boxes_G4[0].tolist())
    assert (x2 - x1, y2 - y1) == (20, 10)
    before, after = np.array(target.image).astype(float), np.array(result.image).astype(float)
    part = np.array(source.image)[4:18, 3:27].astype(float)
    part = part[:, ::-1] if flip else part
    assert (after[y1:y2, x1:x2] == part[2:-2, 2:-2]).all()
    around = (slice(y1 - 2, y2 + 2), slice(x1 - 2, x2 + 2))
    ramp = np.array([0.25, 0.75])
    opacity = np.outer([*ramp, *[1] * 10, *ramp[::-1]], [*ramp, *[1] * 20, *ramp[::-1]])[:, :, None]
    np.testing.assert_allclose(after[around], opacity * part + (1 - opacity) * before[around], atol=1.6)
    after[around] = before[around]
    assert (after == before).all()


def test_an_object_at_the_border_of_its_image_fades_out_inside_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_paste, "SCALES", (1.0, 1.0))
    result = pasted(noise_scene((40, 30), [[0, 0, 40, 30]], seed=1), noise_scene((40, 30), [], seed=2))
    assert result.boxes_G4.tolist() == [[0, 0, 40, 30]]
    source, after = np.array(noise_scene((40, 30), [], seed=1).image), np.array(result.image)
    assert (source[2:-2, 2:-2] == after[2:-2, 2:-2]).all()
    assert (source[0] != after[0]).mean() > 0.9


def test_a_large_object_shrinks_to_fit_and_a_small_one_is_not_pasted() -> None:
    """The context of a 40 x 20 object is 4 x 2 pixels on each side: 48 x 24 pixels."""
    source = noise_scene((60, 40), [[10, 10, 50, 30]])
    for seed in range(20):
        result = pasted(source, noise_scene((40, 50), []), seed=seed)
        x1, _, x2, _ = result.boxes_G4[0].tolist()
        assert 0.8 * 40 - 1 <= x2 - x1 <= 40 / 48 * 40 + 1
    for target, scale in (((38, 50), 1.0), ((40, 18), 1.0), ((100, 100), 0.15)):
        image = noise_scene(target, [])
        result = paste(image, source, 0, ratio=1.0, input_scale=scale, flip=0, rng=np.random.default_rng(0))
        assert result is image, "0.8 times its size is still too large, or 1.25 times its size is below 4 pixels"


def test_the_size_of_an_object_in_the_input_of_the_network_is_kept() -> None:
    """The pixels of the source are twice as large in the input as those of the scene, which is twice the input."""
    source, target = noise_scene((60, 40), [[10, 10, 30, 20]]), noise_scene((200, 200), [])
    for seed in range(10):
        result = paste(target, source, 0, ratio=2.0, input_scale=0.5, flip=0, rng=np.random.default_rng(seed))
        width, height = (result.boxes_G4[0, 2:] - result.boxes_G4[0, :2]).tolist()
        assert 0.8 * 40 - 1 <= width <= 1.25 * 40 + 1
        assert 0.8 * 20 - 1 <= height <= 1.25 * 20 + 1


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_objects_that_overlap_the_pasted_object_come_with_it(flip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Object 1 shows 60 of its 100 square pixels, object 2 only 50, and object 3 does not overlap."""
    monkeypatch.setattr(copy_paste, "SCALES", (1.0, 1.0))
    objects = [[10, 10, 30, 30], [24, 12, 34, 22], [25, 22, 35, 32], [40, 10, 50, 20]]
    result = pasted(noise_scene((60, 40), objects), noise_scene((100, 100), []), flip=flip)
    expected = [
        [0, 0, 20, 20],
        [0, 2, 6, 12] if flip else [14, 2, 20, 12],
        [0, 12, 5, 20] if flip else [15, 12, 20, 20],
    ]
    assert (result.boxes_G4 - result.boxes_G4[0, :2].repeat(2)).tolist() == expected
    assert result.labels_G.tolist() == [0, 1, 2]
    assert result.crowd_G.tolist() == [False, False, True]


def test_visible_objects_are_clipped() -> None:
    visible = visible_objects(noise_scene((60, 40), [[0, 0, 10, 10], [5, 0, 15, 10], [30, 0, 40, 10]]), (4, 0, 30, 20))
    assert visible.boxes_G4.tolist() == [[4, 0, 10, 10], [5, 0, 15, 10]]
    assert visible.crowd_G.tolist() == [False, False]


@settings(max_examples=num_examples(100))
@given(st.integers(0, 2**32), st.integers(0, 8))
def test_a_pasted_object_never_touches_an_object(seed: int, count: int) -> None:
    """With crowd regions, and with several objects pasted one after the other."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (count, 2))
    objects = np.concatenate([corners, corners + rng.uniform(1, 14, (count, 2))], axis=1).tolist()
    target = noise_scene((64, 64), objects)
    target.crowd_G[::2] = True
    source = noise_scene((60, 40), [[10, 10, 30, 20]])
    added = 0
    for _ in range(3):
        result = paste(target, source, 0, ratio=1.0, input_scale=1.0, flip=0.5, rng=rng)
        new = result.boxes_G4[len(target.boxes_G4) :]
        assert (boxes.intersection(new[:, None], target.boxes_G4[None]) == 0).all()
        assert ((new >= 0) & (new <= 64)).all()
        before, after = np.array(target.image), np.array(result.image)
        for x1, y1, x2, y2 in target.boxes_G4.tolist():
            where = (slice(int(np.ceil(y1)), int(y2)), slice(int(np.ceil(x1)), int(x2)))
            assert (before[where] == after[where]).all()
        target, added = result, added + len(new)
    assert added or count, "an empty image always has a free place"


def test_a_class_is_pasted_in_proportion_to_one_over_its_objects(tmp_path: Path) -> None:
    """8 objects of a, 2 of b, 1 of c: 1/8, 1/2 and 1 of a sum of 13/8."""
    data = noise_dataset(tmp_path, [[0, 0, 0, 0], [0, 0, 0, 0], [1, 2], [1]])
    sources = PasteSources.of(data)
    np.testing.assert_allclose(sources.probability_K, [1 / 13, 4 / 13, 8 / 13])
    rng = np.random.default_rng(0)
    drawn = Counter(sources.draw(rng) for _ in range(4000))
    assert set(drawn) == {*((0, i) for i in range(4)), *((1, i) for i in range(4)), (2, 0), (2, 1), (3, 0)}
    for objects, probability in (
        ([(0, i) for i in range(4)] + [(1, i) for i in range(4)], 1 / 13),
        ([(2, 0), (3, 0)], 4 / 13),
        ([(2, 1)], 8 / 13),
        ([(3, 0)], 2 / 13),
    ):
        frequency = sum(drawn[key] for key in objects) / 4000
        assert abs(frequency - probability) < 4 * (probability * (1 - probability) / 4000) ** 0.5


def test_crowd_regions_and_tiny_objects_are_not_pasted(tmp_path: Path) -> None:
    data = noise_dataset(tmp_path, [[0, 1, 2], [2]])
    data.records[0].crowd_G[0] = True
    data.records[0].boxes_G4[1, 2] = data.records[0].boxes_G4[1, 0] + 3.9
    sources = PasteSources.of(data)
    assert sources.probability_K.tolist() == [0, 0, 1]
    assert list(zip(sources.images_S.tolist(), sources.objects_S.tolist(), strict=True)) == [(0, 2), (1, 0)]


def test_samples_receive_one_to_three_objects_of_other_images(tmp_path: Path) -> None:
    data = noise_dataset(tmp_path, [[], [0], [1], []], size=(200, 150))
    image_config = ImageConfig(image_size=150, max_size=200)
    on = DetectionDataset(data=data, image_config=image_config, augment=AugmentConfig(flip=0, copy_paste=1))
    off = DetectionDataset(data=data, image_config=image_config, augment=AugmentConfig(flip=0))
    counts = Counter(len(on[SampleKey(0, seed, 150)].target.labels_G) for seed in range(60))
    assert set(counts) == set(range(1, MAX_PASTES + 1))
    for seed in range(5):
        sample = on[SampleKey(1, seed, 150)]
        assert 0 not in sample.target.labels_G[1:].tolist(), "the only object of class a is in the image itself"
        closed, plain = on[SampleKey(1, seed, 150, combine=False)], off[SampleKey(1, seed, 150)]
        assert torch.equal(closed.pixels_3HW, plain.pixels_3HW)
        assert torch.equal(closed.target.boxes_G4, plain.target.boxes_G4)


def test_an_object_of_a_tile_is_read_as_images_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is a grey image of 12 of 16 bits, read by windows. Its only object lies in the tile on the right."""
    monkeypatch.setattr(copy_paste, "SCALES", (1.0, 1.0))
    data = noise_dataset(tmp_path, [[], [0]], size=(96, 48))
    data.records[1].boxes_G4[:] = [[80, 20, 90, 32]]
    grey = np.random.default_rng(1).integers(0, 4096, (48, 96)).astype(np.uint16)
    Image.fromarray(grey).save(data.records[1].path)
    tiles = cut_into_tiles(data, TileConfig(tile=48, overlap=0)).data
    assert [(record.window, len(record.boxes_G4)) for record in tiles.records] == [
        *(((0, 0, 48, 48), 0), ((48, 0, 96, 48), 0), (None, 0)),
        *(((0, 0, 48, 48), 0), ((48, 0, 96, 48), 1), (None, 1)),
    ]
    image_config = ImageConfig(image_size=48, max_size=96, value_range=ValueRangeConfig(bit_depth=12))
    config = AugmentConfig(flip=0, copy_paste=1)
    sample = DetectionDataset(data=tiles, image_config=image_config, augment=config)[SampleKey(1, 0, 48)]
    expected = (grey[20:32, 80:90] >> 4).astype(np.uint8)
    assert len(sample.target.boxes_G4) > 0
    for x1, y1, x2, y2 in sample.target.boxes_G4.int().tolist():
        assert (sample.pixels_3HW[:, y1:y2, x1:x2].numpy() == expected).all()


@pytest.mark.parametrize("labels", [[[0]], [[], []], [[0, 1, 2], []]])
def test_data_without_objects_in_other_images_is_left_as_it_is(tmp_path: Path, labels: list[list[int]]) -> None:
    data = noise_dataset(tmp_path, labels)
    on = DetectionDataset(data=data, image_config=CONFIG, augment=AugmentConfig(flip=0, copy_paste=1))
    for seed in range(3):
        assert torch.equal(on[SampleKey(0, seed, 48)].pixels_3HW, on[0].pixels_3HW)
