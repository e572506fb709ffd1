"""Tests of training on tiles: boxes stay on their objects, and objects that a tile mostly cuts off are ignored."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.config import ImageConfig, TileConfig
from retinanet.data import DetectionData, DetectionDataset, Record, cut_into_tiles
from tests.shared import num_examples


def data_of(path: Path, width: int, height: int, boxes: list[list[float]]) -> DetectionData:
    """Return a dataset of one image with these boxes, xyxy, pixels. Class ids are 0, 1, 2, 0, ..."""
    boxes_G4 = np.array(boxes, np.float64).reshape(-1, 4)
    G = len(boxes_G4)
    record = Record(
        path=path,
        width=width,
        height=height,
        boxes_G4=boxes_G4,
        labels_G=np.arange(G) % 3,
        crowd_G=np.zeros(G, bool),
        areas_G=(boxes_G4[:, 2:] - boxes_G4[:, :2]).prod(axis=1),
        annotation_ids=tuple(range(1, G + 1)),
        image_id=7,
    )
    return DetectionData(records=(record,), classes=("a", "b", "c"), category_ids=(1, 2, 3), source=path)


def test_boxes_and_crowd_flags_of_hand_worked_tiles() -> None:
    """180 x 100 pixels in two tiles, x 0 to 100 and 80 to 180. `whole_from` is 50 pixels.

    A tile ignores objects of which less than 0.6 is visible. The complete image ignores objects up to 50 pixels long.
    """
    boxes = [[85, 10, 95, 20], [70, 40, 110, 50], [60, 60, 130, 90], [95, 0, 105, 10]]
    tiled = cut_into_tiles(data_of(Path("p.png"), 180, 100, boxes), TileConfig(tile=100, overlap=0.2))
    first, second, whole = tiled.data.records
    assert tiled.parents == (0, 0, 0)
    assert (first.window, second.window, whole.window) == ((0, 0, 100, 100), (80, 0, 180, 100), None)
    assert first.boxes_G4.tolist() == [[85, 10, 95, 20], [70, 40, 100, 50], [60, 60, 100, 90], [95, 0, 100, 10]]
    assert first.crowd_G.tolist() == [False, False, True, True], "visible: all, 3/4, 4/7, 1/2"
    assert second.boxes_G4.tolist() == [[5, 10, 15, 20], [0, 40, 30, 50], [0, 60, 50, 90], [15, 0, 25, 10]]
    assert second.crowd_G.tolist() == [False, False, False, False], "visible: all, 3/4, 5/7, all"
    assert whole.crowd_G.tolist() == [True, True, False, True], "only the box of 70 pixels is longer than 50"
    assert first.areas_G.tolist() == [100, 300, 1200, 50]
    assert second.annotation_ids == (1, 2, 3, 4)


def test_a_tile_has_only_objects_inside_it_and_small_images_are_not_cut() -> None:
    data = data_of(Path("p.png"), 180, 100, [[0, 0, 10, 10], [80, 0, 90, 10]])
    assert cut_into_tiles(data, TileConfig(tile=100)).data.records[1].boxes_G4.tolist() == [[0, 0, 10, 10]]
    for tiling in (TileConfig(tile=180), TileConfig(tile=0), TileConfig()):
        assert cut_into_tiles(data, tiling).data.records == data.records


@given(st.integers(40, 200), st.integers(40, 200), st.integers(32, 90), st.floats(0, 0.6), st.integers(0, 2**32))
@settings(max_examples=num_examples(40), deadline=None)
def test_boxes_of_tiles_lie_on_their_objects(width: int, height: int, tile: int, overlap: float, seed: int) -> None:
    """Each of three rectangles, red, green and blue, fills its box in every tile, to the pixel."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for label in range(3):
        x1, y1 = int(rng.integers(0, width - 12)), int(rng.integers(0, height - 12))
        boxes.append([x1, y1, x1 + int(rng.integers(3, 13)), y1 + int(rng.integers(3, 13))])
        pixels[boxes[-1][1] : boxes[-1][3], boxes[-1][0] : boxes[-1][2], label] = 255
    path = Path(tempfile.mkdtemp()) / "image.png"
    Image.fromarray(pixels).save(path)
    tiled = cut_into_tiles(data_of(path, width, height, boxes), TileConfig(tile=tile, overlap=overlap))
    config = ImageConfig(image_size=tile, max_size=4 * tile)
    dataset = DetectionDataset(data=tiled.data, image_config=config)
    complete_labels = set()
    for i, record in enumerate(tiled.data.records):
        if record.window is None:
            continue
        sample = dataset[i]
        scale = torch.tensor(sample.frame[2:] * 2) / torch.tensor(sample.frame[:2] * 2)
        labels = record.labels_G.tolist()
        for label in range(3):
            points = torch.nonzero(sample.pixels_3HW[label] >= 128).flip(1)
            if label not in labels:
                assert not len(points)
                continue
            box = sample.target.boxes_G4[sample.target.labels_G == label]
            if len(box) and len(points):
                extent = torch.cat([points.amin(0), points.amax(0) + 1]).float()
                assert (extent - box[0]).abs().max() <= scale.max() + 0.5
            if not record.crowd_G[labels.index(label)]:
                complete_labels.add(label)
    if tiled.data.records[0].window is not None and overlap * tile >= 13:
        assert complete_labels == {0, 1, 2}, "an object smaller than the overlap is complete in some tile"
