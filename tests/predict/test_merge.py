"""Tiles cover large images, and the detections of several tiles or views are merged."""

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
def test_tiles_cover_the_image_with_the_given_overlap(width: int, height: int, tile: int, overlap: float) -> None:
    places = tiles(width, height, tile=tile, overlap=overlap)
    for side, low, high in ((width, 0, 2), (height, 1, 3)):
        spans = sorted({(place[low], place[high]) for place in places})
        assert spans[0][0] == 0
        assert spans[-1][1] == side
        assert all(end - start == min(tile, side) for start, end in spans)
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= overlap * tile - 1


def test_tiles_computed_by_hand() -> None:
    assert tiles(100, 50, tile=64, overlap=0.25) == [(0, 0, 64, 50), (36, 0, 100, 50)]
    assert tiles(64, 64, tile=64, overlap=0.2) == [(0, 0, 64, 64)]


def make_detections(*rows: tuple[float, float, float, float, float, int]) -> ArrayDetections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return ArrayDetections(boxes_D4=table[:, :4], scores_D=table[:, 4], labels_D=table[:, 5].astype(np.int64))


NONE = make_detections()
TILES = [(0, 0, 100, 100), (80, 0, 180, 100)]


def merge(
    whole: ArrayDetections, first: ArrayDetections, second: ArrayDetections, config: PostprocessConfig = CONFIG
) -> list[tuple[Any, ...]]:
    """Return (box, score, label) of each detection that remains after merging two tiles and the whole image."""
    result = merge_tiles(whole, [first, second], TILES, width=180, height=100, whole_from=20, config=config)
    boxes = [tuple(round(v) for v in box) for box in result.boxes_D4.tolist()]
    return list(zip(boxes, [round(s, 2) for s in result.scores_D.tolist()], result.labels_D.tolist(), strict=True))


def test_an_object_in_the_overlap_of_two_tiles_is_detected_once() -> None:
    """The object is complete in both tiles: x 85..95 of the first tile is x 5..15 of the second."""
    assert merge(NONE, make_detections((85, 10, 95, 20, 0.8, 0)), make_detections((5, 10, 15, 20, 0.9, 0))) == [
        ((85, 10, 95, 20), 0.9, 0)
    ]


def test_a_cut_box_is_dropped_for_the_complete_box_even_with_a_higher_score() -> None:
    """The object at x 70..130 is cut in both tiles, and complete in the whole image."""
    whole = make_detections((70, 10, 130, 40, 0.6, 0))
    assert merge(whole, make_detections((70, 10, 100, 40, 0.9, 0)), make_detections((0, 10, 50, 40, 0.9, 0))) == [
        ((70, 10, 130, 40), 0.6, 0)
    ]


def test_a_cut_box_without_a_complete_box_of_its_class_is_kept() -> None:
    part = make_detections((90, 10, 100, 40, 0.7, 0))
    assert merge(NONE, part, NONE) == [((90, 10, 100, 40), 0.7, 0)]
    assert len(merge(make_detections((70, 10, 130, 40, 0.6, 1)), part, NONE)) == 2


def test_the_larger_of_two_cut_boxes_is_kept_unless_its_score_is_low() -> None:
    """The object is cut in both tiles. The second tile contains the larger part."""
    first, second = make_detections((75, 10, 100, 40, 0.9, 0)), make_detections((0, 10, 25, 40, 0.8, 0))
    assert merge(NONE, first, make_detections((0, 10, 60, 40, 0.8, 0))) == [((80, 10, 140, 40), 0.8, 0)]
    assert merge(NONE, first, make_detections((0, 10, 60, 40, 0.3, 0)))[0] == ((75, 10, 100, 40), 0.9, 0)
    assert len(merge(NONE, first, second)) == 1


def test_detections_of_the_whole_image_are_used_only_for_long_boxes() -> None:
    """With whole_from=20, a box of 20 pixels is dropped, and a box of 21 pixels is kept."""
    assert merge(make_detections((40, 10, 60, 30, 0.9, 0)), NONE, NONE) == []
    assert merge(make_detections((40, 10, 61, 30, 0.9, 0)), NONE, NONE) == [((40, 10, 61, 30), 0.9, 0)]


def test_boxes_at_the_edge_of_the_image_are_complete() -> None:
    """A box at x = 0 of the first tile ends at the edge of the image, not at a tile border."""
    first = make_detections((0, 10, 30, 40, 0.9, 0))
    assert merge(make_detections((0, 10, 31, 40, 0.5, 0)), first, NONE) == [((0, 10, 30, 40), 0.9, 0)]


class BrightPixelNetwork(nn.Module):
    """A network that detects each pixel above 0.5 as a 9 x 9 box around it, independently of the tile."""

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
        model=BrightPixelNetwork(),
        classes=("dot",),
        category_ids=(1,),
        image_config=ImageConfig(image_size=64, max_size=64, size_divisor=1, image_mean=(0, 0, 0), image_std=(1, 1, 1)),
        postprocess_config=CONFIG,
        device="cpu",
    )


def test_tiles_detect_small_objects_that_vanish_in_the_reduced_image(detector: Detector) -> None:
    """Single bright pixels vanish if the image of 300 x 200 is reduced to 64. In tiles of 64, each is detected once."""
    pixels = np.zeros((200, 300, 3), np.uint8)
    rng = np.random.default_rng(0)
    dots = [
        (int(x) * 20 + 10, int(y) * 20 + 10) for x, y in zip(rng.permutation(14), rng.integers(0, 9, 14), strict=True)
    ]
    for x, y in dots:
        pixels[y, x] = 255
    image = Image.fromarray(pixels)
    assert len(detector.predict(image)) == 0
    detections = detector.predict(image, tile=64, overlap=0.3)
    boxes = detections.xyxy.tolist()
    centers = sorted((round((b[0] + b[2]) / 2 - 0.5), round((b[1] + b[3]) / 2 - 0.5)) for b in boxes)
    assert centers == sorted(dots)
    small = image.crop((0, 0, 60, 60))
    assert len(detector.predict(small, tile=64)) == len(detector.predict(small)), (
        "an image not larger than a tile is not cut"
    )


def test_class_agnostic_merging_ignores_the_class() -> None:
    """Two complete boxes with an IoU of 1, a cut box in a complete one, and two cut boxes with an IoU of 0.8."""
    agnostic = PostprocessConfig(agnostic_nms=True)
    complete = make_detections((85, 10, 95, 20, 0.8, 0)), make_detections((5, 10, 15, 20, 0.9, 1))
    assert len(merge(NONE, *complete)) == 2
    assert merge(NONE, *complete, agnostic) == [((85, 10, 95, 20), 0.9, 1)]
    whole, part = make_detections((70, 10, 130, 40, 0.6, 1)), make_detections((90, 10, 100, 40, 0.7, 0))
    assert len(merge(whole, part, NONE)) == 2
    assert merge(whole, part, NONE, agnostic) == [((70, 10, 130, 40), 0.6, 1)]
    cut = make_detections((90, 50, 100, 70, 0.7, 0), (90, 50, 100, 66, 0.6, 2))
    assert len(merge(NONE, cut, NONE)) == 2
    assert merge(NONE, cut, NONE, agnostic) == [((90, 50, 100, 70), 0.7, 0)]


def test_class_agnostic_merging_of_views_keeps_one_class_with_the_score_of_its_boxes() -> None:
    """Class 0 has the scores 0.8 and 0.4 in two views, mean 0.6. Class 1 (0.7) is suppressed and gives no score."""
    views = [
        make_detections((10, 10, 50, 50, 0.8, 0)),
        make_detections((10, 10, 50, 50, 0.7, 1), (10, 10, 50, 50, 0.4, 0)),
    ]
    assert merge_views(views, config=CONFIG).labels_D.tolist() == [0, 1]
    result = merge_views(views, config=PostprocessConfig(agnostic_nms=True))
    assert result.labels_D.tolist() == [0]
    np.testing.assert_allclose(result.scores_D, [0.6], rtol=1e-6)


def test_invalid_tile_options_are_refused() -> None:
    for options in ({"tile": 8}, {"tile": -1}, {"overlap": 0.95}):
        with pytest.raises(ConfigError):
            resolve(PredictConfig, {"output": "x", **options})


def test_merged_views_have_the_weighted_mean_box_and_the_mean_score() -> None:
    """Two of three views detect an object, at x = 10 (score 0.8) and x = 12 (0.4): x = 10.67, score 1.2 / 3 = 0.4."""
    first, second = (
        make_detections((10, 10, 50, 50, 0.8, 0), (60, 60, 90, 90, 0.3, 1)),
        make_detections((12, 10, 52, 50, 0.4, 0)),
    )
    result = merge_views([first, second, NONE], config=CONFIG)
    assert result.labels_D.tolist() == [0, 1]
    np.testing.assert_allclose(result.boxes_D4[0], [10 + 2 / 3, 10, 50 + 2 / 3, 50], rtol=1e-6)
    np.testing.assert_allclose(result.scores_D, [1.2 / 3, 0.3 / 3], rtol=1e-6)
    assert len(merge_views([NONE, NONE], config=CONFIG).scores_D) == 0


def test_test_time_augmentation_maps_boxes_back_to_the_image(detector: Detector) -> None:
    """All views of an image with three dots give boxes at the dots, after flipping and scaling back."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    dots = [(10, 10), (40, 30), (25, 40)]
    for x, y in dots:
        pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    detections = detector.predict(Image.fromarray(pixels), tta=True, threshold=0.3)
    centers = ((detections.xyxy[:, :2] + detections.xyxy[:, 2:]) / 2 - 0.5).tolist()
    for x, y in dots:
        assert any(abs(cx - x) < 3 and abs(cy - y) < 3 for cx, cy in centers)
    assert all(any(abs(cx - x) < 5 and abs(cy - y) < 5 for x, y in dots) for cx, cy in centers)
