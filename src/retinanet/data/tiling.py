"""Training on tiles of large images. The tile grid is that of prediction, so objects have the same size in both.

Shape suffixes: G objects of an image. Boxes are xyxy, pixels of the tile.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.formats.records import DetectionData, Record
from retinanet.images import tiles

if TYPE_CHECKING:
    from retinanet.config import TileConfig

MIN_VISIBLE_SHARE: Final = 0.6
"""Minimum share of an object's box inside a tile. An object below it is ignored: too little of it is visible."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TiledData:
    """A dataset whose records are tiles and complete images.

    Args:
        data: for each image its tiles, row by row, followed by the complete image if it has more than one tile.
        parents: index of each record's image in the dataset before tiling.
    """

    data: DetectionData
    parents: tuple[int, ...]


def cut_into_tiles(data: DetectionData, tiling: TileConfig) -> TiledData:
    """Return a dataset of the tiles of every image. An image that is not larger than a tile is not cut.

    Some objects are marked as crowd, so that the loss ignores them:

    - in a tile, objects of which the tile shows less than `MIN_VISIBLE_SHARE`;
    - in the complete image, objects whose longer side is at most `tiling.whole_from`. Prediction detects these in
      tiles only.
    """
    records: list[Record] = []
    parents: list[int] = []
    for index, record in enumerate(data.records):
        tile_records = _cut(record, tiling)
        records += tile_records
        parents += [index] * len(tile_records)
    return TiledData(data=dataclasses.replace(data, records=tuple(records)), parents=tuple(parents))


def _cut(record: Record, tiling: TileConfig) -> list[Record]:
    """Return the tiles of one image and the complete image, or the image alone if it fits into one tile."""
    windows = tiles(record.width, record.height, tile=tiling.tile, overlap=tiling.overlap) if tiling.tile else []
    if len(windows) < 2:
        return [record]
    sides_G2 = record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
    short_G = sides_G2.max(axis=1, initial=0) <= tiling.whole_from
    whole = dataclasses.replace(record, crowd_G=record.crowd_G | short_G)
    return [*(_tile_record(record, window) for window in windows), whole]


def _tile_record(record: Record, window: tuple[int, int, int, int]) -> Record:
    """Return the record of one tile. `window` is xyxy, original pixels."""
    corner = np.array(window[:2] * 2, np.float64)
    size = np.array([window[2] - window[0], window[3] - window[1]] * 2, np.float64)
    boxes_G4 = np.clip(record.boxes_G4 - corner, 0, size)
    visible_G2, full_G2 = boxes_G4[:, 2:] - boxes_G4[:, :2], record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
    keep_G = (visible_G2 > 0).all(axis=1)
    share_G = visible_G2[keep_G].prod(axis=1) / full_G2[keep_G].prod(axis=1)
    return dataclasses.replace(
        record,
        width=window[2] - window[0],
        height=window[3] - window[1],
        boxes_G4=boxes_G4[keep_G],
        labels_G=record.labels_G[keep_G],
        crowd_G=record.crowd_G[keep_G] | (share_G < MIN_VISIBLE_SHARE),
        areas_G=record.areas_G[keep_G] * share_G,
        annotation_ids=tuple(record.annotation_ids[i] for i in np.flatnonzero(keep_G)),
        window=window,
    )
