"""Training images in tiles: boxes stay on their objects, and what a tile only shows a piece of is not taught."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.config import ImageConfig, TileConfig
from retinanet.data import DetectionData, DetectionDataset, Record, cut
from tests.shared import examples


def data_of(path: Path, width: int, height: int, boxes: list[list[float]]) -> DetectionData:
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


def test_a_cut_by_hand() -> None:
    """180 x 100 in two tiles of 100 that share 20 pixels, 0..100 and 80..180; whole images teach what is over 50."""
    boxes = [[85, 10, 95, 20], [70, 40, 110, 50], [60, 60, 130, 90], [95, 0, 105, 10]]
    tiled = cut(data_of(Path("p.png"), 180, 100, boxes), TileConfig(tile=100, overlap=0.2))
    first, second, whole = tiled.data.records
    assert tiled.parents == (0, 0, 0)
    assert (first.window, second.window, whole.window) == ((0, 0, 100, 100), (80, 0, 180, 100), None)
    assert first.boxes_G4.tolist() == [[85, 10, 95, 20], [70, 40, 100, 50], [60, 60, 100, 90], [95, 0, 100, 10]]
    assert first.crowd_G.tolist() == [False, False, True, True], "shown: all, 3/4, 4/7, 1/2"
    assert second.boxes_G4.tolist() == [[5, 10, 15, 20], [0, 40, 30, 50], [0, 60, 50, 90], [15, 0, 25, 10]]
    assert second.crowd_G.tolist() == [False, False, False, False], "shown: all, 3/4, 5/7, all"
    assert whole.crowd_G.tolist() == [True, True, False, True], "70 pixels long is the only one over 50"
    assert first.areas_G.tolist() == [100, 300, 1200, 50]
    assert second.annotation_ids == (1, 2, 3, 4)


def test_what_lies_outside_a_tile_is_not_in_it_and_small_images_stay_as_they_are() -> None:
    data = data_of(Path("p.png"), 180, 100, [[0, 0, 10, 10], [80, 0, 90, 10]])
    assert cut(data, TileConfig(tile=100)).data.records[1].boxes_G4.tolist() == [[0, 0, 10, 10]]
    for tiling in (TileConfig(tile=180), TileConfig(tile=0), TileConfig()):
        assert cut(data, tiling).data.records == data.records


@given(st.integers(40, 200), st.integers(40, 200), st.integers(32, 90), st.floats(0, 0.6), st.integers(0, 2**32))
@settings(max_examples=examples(40), deadline=None)
def test_every_tile_shows_its_objects_where_their_boxes_are(
    width: int, height: int, tile: int, overlap: float, seed: int
) -> None:
    """Three painted markers, red, green and blue: each is found within its box in every tile, to the pixel."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for label in range(3):
        x1, y1 = int(rng.integers(0, width - 12)), int(rng.integers(0, height - 12))
        boxes.append([x1, y1, x1 + int(rng.integers(3, 13)), y1 + int(rng.integers(3, 13))])
        pixels[boxes[-1][1] : boxes[-1][3], boxes[-1][0] : boxes[-1][2], label] = 255
    path = Path(tempfile.mkdtemp()) / "image.png"
    Image.fromarray(pixels).save(path)
    tiled = cut(data_of(path, width, height, boxes), TileConfig(tile=tile, overlap=overlap))
    config = ImageConfig(image_size=tile, max_size=4 * tile)
    dataset = DetectionDataset(data=tiled.data, image_config=config)
    whole_somewhere = set()
    for i, record in enumerate(tiled.data.records):
        if record.window is None:
            continue
        sample = dataset[i]
        scale = torch.tensor(sample.frame[2:] * 2) / torch.tensor(sample.frame[:2] * 2)
        shown = [int(s) for s in record.labels_G]
        for label in range(3):
            at = torch.nonzero(sample.pixels_3HW[label] >= 128).flip(1)
            if label not in shown:
                assert not len(at)
                continue
            box = sample.target.boxes_G4[sample.target.labels_G == label]
            if len(box) and len(at):
                extent = torch.cat([at.amin(0), at.amax(0) + 1]).float()
                assert (extent - box[0]).abs().max() <= scale.max() + 0.5
            if not record.crowd_G[shown.index(label)]:
                whole_somewhere.add(label)
    if tiled.data.records[0].window is not None and overlap * tile >= 13:
        assert whole_somewhere == {0, 1, 2}, "what is smaller than the overlap is whole in some tile"
