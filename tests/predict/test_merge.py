"""Large images in tiles: the grid covers them, and what several tiles see becomes one detection."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from retinanet.config import ImageConfig, PostprocessConfig, PredictConfig, resolve
from retinanet.errors import ConfigError
from retinanet.images import tiles
from retinanet.predict.merge import merge_tiles, merge_views
from retinanet.predict.torch_detector import Detector
from retinanet.types import ArrayDetections, HeadOutputs

CONFIG = PostprocessConfig()


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 1024), st.floats(0, 0.8))
def test_tiles_cover_the_image_and_overlap_as_asked(width: int, height: int, tile: int, overlap: float) -> None:
    found = tiles(width, height, tile=tile, overlap=overlap)
    for side, low, high in ((width, 0, 2), (height, 1, 3)):
        spans = sorted({(place[low], place[high]) for place in found})
        assert spans[0][0] == 0
        assert spans[-1][1] == side
        assert all(end - start == min(tile, side) for start, end in spans)
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= overlap * tile - 1


def test_a_grid_by_hand() -> None:
    assert tiles(100, 50, tile=64, overlap=0.25) == [(0, 0, 64, 50), (36, 0, 100, 50)]
    assert tiles(64, 64, tile=64, overlap=0.2) == [(0, 0, 64, 64)]


def seen(*rows: tuple[float, float, float, float, float, int]) -> ArrayDetections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return ArrayDetections(boxes_D4=table[:, :4], scores_D=table[:, 4], labels_D=table[:, 5].astype(np.int64))


NONE = seen()
TILES = [(0, 0, 100, 100), (80, 0, 180, 100)]


def merged(whole: ArrayDetections, first: ArrayDetections, second: ArrayDetections) -> list[tuple[Any, ...]]:
    found = merge_tiles(whole, [first, second], TILES, width=180, height=100, whole_from=20, config=CONFIG)
    boxes = [tuple(round(v) for v in box) for box in found.boxes_D4.tolist()]
    return list(zip(boxes, [round(s, 2) for s in found.scores_D.tolist()], found.labels_D.tolist(), strict=True))


def test_an_object_in_the_overlap_is_one() -> None:
    """Whole in both tiles: 85..95 of the first is 5..15 of the second."""
    assert merged(NONE, seen((85, 10, 95, 20, 0.8, 0)), seen((5, 10, 15, 20, 0.9, 0))) == [((85, 10, 95, 20), 0.9, 0)]


def test_a_part_at_a_border_gives_way_to_the_whole_even_with_a_higher_score() -> None:
    """70..130 lies across the first tile's end; the second sees 80..130, the whole image all of it."""
    whole = seen((70, 10, 130, 40, 0.6, 0))
    assert merged(whole, seen((70, 10, 100, 40, 0.9, 0)), seen((0, 10, 50, 40, 0.9, 0))) == [
        ((70, 10, 130, 40), 0.6, 0)
    ]


def test_a_part_that_nothing_else_saw_stays_and_other_classes_do_not_count() -> None:
    part = seen((90, 10, 100, 40, 0.7, 0))
    assert merged(NONE, part, NONE) == [((90, 10, 100, 40), 0.7, 0)]
    assert len(merged(seen((70, 10, 130, 40, 0.6, 1)), part, NONE)) == 2


def test_of_two_parts_the_larger_stays_unless_it_is_doubtful() -> None:
    """Both tiles see a part of what lies across their borders, the second more of it."""
    first, second = seen((75, 10, 100, 40, 0.9, 0)), seen((0, 10, 25, 40, 0.8, 0))
    assert merged(NONE, first, seen((0, 10, 60, 40, 0.8, 0))) == [((80, 10, 140, 40), 0.8, 0)]
    assert merged(NONE, first, seen((0, 10, 60, 40, 0.3, 0)))[0] == ((75, 10, 100, 40), 0.9, 0)
    assert len(merged(NONE, first, second)) == 1


def test_of_the_whole_only_what_is_long() -> None:
    """20 pixels long is left to the tiles, 21 is not."""
    assert merged(seen((40, 10, 60, 30, 0.9, 0)), NONE, NONE) == []
    assert merged(seen((40, 10, 61, 30, 0.9, 0)), NONE, NONE) == [((40, 10, 61, 30), 0.9, 0)]


def test_the_edge_of_the_image_is_no_border() -> None:
    """A box at x = 0 of the first tile is cut by the image, not by a tile: it suppresses as any other."""
    first = seen((0, 10, 30, 40, 0.9, 0))
    assert merged(seen((0, 10, 31, 40, 0.5, 0)), first, NONE) == [((0, 10, 30, 40), 0.9, 0)]


class Bright(nn.Module):
    """Detects pixels above 0.5 as boxes of 9 x 9 around them: what it sees does not depend on the tile."""

    def forward(self, images_N3HW: torch.Tensor) -> HeadOutputs:
        N, _, H, W = images_N3HW.shape
        y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        centers = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4).float()
        anchors = centers + torch.tensor([-4.0, -4.0, 5.0, 5.0])
        logits = torch.where(images_N3HW[:, 0].reshape(N, -1, 1) > 0.5, 4.0, -9.0)
        return HeadOutputs(
            logits_NAK=logits, deltas_NA4=torch.zeros(N, H * W, 4), anchors_A4=anchors, anchors_per_level=(H * W,)
        )


@pytest.fixture
def detector() -> Detector:
    return Detector(
        model=Bright(),
        classes=("dot",),
        category_ids=(1,),
        image_config=ImageConfig(image_size=64, max_size=64, size_divisor=1, image_mean=(0, 0, 0), image_std=(1, 1, 1)),
        postprocess_config=CONFIG,
        device="cpu",
    )


def test_small_objects_that_the_whole_image_loses(detector: Detector) -> None:
    """Single bright pixels in 300 x 200: shrunk to 64 they vanish, in tiles of 64 each is found, once."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    rng = np.random.default_rng(0)
    dots = [
        (int(x) * 20 + 10, int(y) * 20 + 10) for x, y in zip(rng.permutation(14), rng.integers(0, 9, 14), strict=True)
    ]
    for x, y in dots:
        pixels[y, x] = 255
    image = Image.fromarray(pixels)
    assert len(detector.predict(image)) == 0
    found = detector.predict(image, tile=64, overlap=0.3)
    centers = sorted((round((b[0] + b[2]) / 2 - 0.5), round((b[1] + b[3]) / 2 - 0.5)) for b in found.xyxy.tolist())
    assert centers == sorted(dots)
    small = image.crop((0, 0, 60, 60))
    assert len(detector.predict(small, tile=64)) == len(detector.predict(small)), "no larger than a tile: not cut"


def test_bad_tiles_are_refused() -> None:
    for options in ({"tile": 8}, {"tile": -1}, {"overlap": 0.95}):
        with pytest.raises(ConfigError):
            resolve(PredictConfig, {"output": "x", **options})


def test_views_vote_on_a_box() -> None:
    """Of three views two see an object, at x = 10 (0.8) and 12 (0.4): it is at 10.67, with a score of 0.4."""
    first, second = seen((10, 10, 50, 50, 0.8, 0), (60, 60, 90, 90, 0.3, 1)), seen((12, 10, 52, 50, 0.4, 0))
    found = merge_views([first, second, NONE], config=CONFIG)
    assert found.labels_D.tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes_D4[0], [10 + 2 / 3, 10, 50 + 2 / 3, 50], rtol=1e-6)
    np.testing.assert_allclose(found.scores_D, [1.2 / 3, 0.3 / 3], rtol=1e-6)
    assert len(merge_views([NONE, NONE], config=CONFIG).scores_D) == 0


def test_test_time_augmentation_brings_boxes_back(detector: Detector) -> None:
    """Every view of an image with three dots finds them where they are: mirrored back, scaled back, none twice."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    dots = [(10, 10), (40, 30), (25, 40)]
    for x, y in dots:
        pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    found = detector.predict(Image.fromarray(pixels), tta=True, threshold=0.3)
    centers = ((found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2 - 0.5).tolist()
    for x, y in dots:
        assert any(abs(cx - x) < 3 and abs(cy - y) < 3 for cx, cy in centers)
    assert all(any(abs(cx - x) < 5 and abs(cy - y) < 5 for x, y in dots) for cx, cy in centers)
