"""Training images in tiles: the same grid as `predict --tile`, so that objects have the size they are found at.

Shape suffixes: G objects of an image. Boxes are xyxy pixels of the tile.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.formats.records import DetectionData, Record
from retinanet.images import tiles

if TYPE_CHECKING:
    from retinanet.config import TileConfig

VISIBLE: Final = 0.6
"""Share of an object that a tile must show for the tile to teach it. Of less, one cannot say what it is."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TiledData:
    """A dataset whose records are tiles and whole images.

    Args:
        data: the tiles of each image, row by row, and then the image as a whole where it has more than one.
        parents: the number of each record's image in the data that was cut.
    """

    data: DetectionData
    parents: tuple[int, ...]


def cut(data: DetectionData, tiling: TileConfig) -> TiledData:
    """Return the tiles of every image. Images no larger than a tile stay as they are.

    In a tile, an object that it shows less than `VISIBLE` of is neither to be found nor to be punished, as a crowd
    region is. In the image as a whole, that holds for what is not longer than `tiling.whole_from`: prediction takes
    those from the tiles alone.
    """
    records: list[Record] = []
    parents: list[int] = []
    for number, record in enumerate(data.records):
        found = _cut(record, tiling)
        records += found
        parents += [number] * len(found)
    return TiledData(data=dataclasses.replace(data, records=tuple(records)), parents=tuple(parents))


def _cut(record: Record, tiling: TileConfig) -> list[Record]:
    places = tiles(record.width, record.height, tile=tiling.tile, overlap=tiling.overlap) if tiling.tile else []
    if len(places) < 2:
        return [record]
    sides_G2 = record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
    short_G = sides_G2.max(axis=1, initial=0) <= tiling.whole_from
    whole = dataclasses.replace(record, crowd_G=record.crowd_G | short_G)
    return [*(_part(record, place) for place in places), whole]


def _part(record: Record, place: tuple[int, int, int, int]) -> Record:
    corner = np.array(place[:2] * 2, np.float64)
    size = np.array([place[2] - place[0], place[3] - place[1]] * 2, np.float64)
    boxes_G4 = np.clip(record.boxes_G4 - corner, 0, size)
    seen_G2, all_G2 = boxes_G4[:, 2:] - boxes_G4[:, :2], record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
    kept_G = (seen_G2 > 0).all(axis=1)
    share_G = seen_G2[kept_G].prod(axis=1) / all_G2[kept_G].prod(axis=1)
    return dataclasses.replace(
        record,
        width=place[2] - place[0],
        height=place[3] - place[1],
        boxes_G4=boxes_G4[kept_G],
        labels_G=record.labels_G[kept_G],
        crowd_G=record.crowd_G[kept_G] | (share_G < VISIBLE),
        areas_G=record.areas_G[kept_G] * share_G,
        annotation_ids=tuple(record.annotation_ids[i] for i in np.flatnonzero(kept_G)),
        window=place,
    )
