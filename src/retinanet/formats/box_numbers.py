"""What the four numbers of a box mean: their unit and their order, checked against the images for every format.

A format declares the meaning of its numbers. A single box shows pixels that were read as fractions: it lies far outside
its image. The whole dataset shows other mistakes. Fractions read as pixels place several boxes inside the first pixel.
Corners read as sizes reach over the edges of many images, while the other order places every box inside its image.

Shape suffixes: O objects of a dataset. Boxes are xyxy in original pixels, not clipped to the image.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from retinanet.formats.records import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.formats.annotated_image import AnnotatedImage

Order = Literal["xyxy", "xywh", "cxcywh"]
Unit = Literal["pixels", "fractions", "percent"]
Box = tuple[float, float, float, float]
Floats = npt.NDArray[np.float64]

ORDER_NAMES: Final[dict[Order, str]] = {
    "xyxy": "x1, y1, x2, y2",
    "xywh": "x1, y1, width, height",
    "cxcywh": "centre x, centre y, width, height",
}
_WHOLE: Final[dict[Unit, float | None]] = {"pixels": None, "fractions": 1.0, "percent": 100.0}
"""Number that stands for the whole width or height of the image."""
_MIN_SIDE: Final = 16
"""Smallest image side, in pixels, for which a box inside the first pixel may be fractions."""
MIN_FRACTIONS: Final = 3
"""Number of boxes inside the first pixel from which such boxes are taken for fractions."""
_MIN_OBJECTS: Final = 4
"""Smallest number of boxes that show a wrong order."""
_MIN_WRONG: Final = 3
_WRONG_SHARE: Final = 0.25
"""Number and share of boxes that do not fit the declared order, from which another order is considered."""
_RIGHT_SHARE: Final = 0.99
"""Share of boxes that must fit the other order."""
_EDGE: Final = 0.05
"""Share of the image side by which a box may reach over the edge and still fit: annotators draw over edges."""
_AREA_TOLERANCE: Final = 0.02
"""Relative difference below which two areas are equal."""
_MIN_UPPER_LEFT: Final = (20, 5)
"""Smallest numbers of boxes and images for the note about boxes in the upper left part only."""


@dataclass(frozen=True, slots=True)
class BoxNumbers:
    """Meaning of the four numbers of a box in an annotation file.

    Args:
        order: `xyxy` two corners, `xywh` upper left corner and sides, `cxcywh` centre and sides.
        unit: `pixels`, or `fractions` (0 to 1) or `percent` (0 to 100) of the image's width and height.
    """

    order: Order = "xyxy"
    unit: Unit = "pixels"

    def may_be_fractions(self, box: Box, width: int, height: int) -> bool:
        """Return whether a box in pixels lies inside the first pixel of its image."""
        inside = self.unit == "pixels" and min(box) >= 0 and max(box) <= 1
        return inside and min(width, height) >= _MIN_SIDE

    def written(self, box: Sequence[float], width: int, height: int) -> str:
        """Return the numbers of a box as the file holds them."""
        whole = _WHOLE[self.unit]
        scale = np.array([width, height] * 2) / whole if whole is not None else 1.0
        numbers = _to_order(np.array([box], np.float64), self.order)[0] / scale
        return ", ".join(f"{number:.6g}" for number in numbers.tolist())

    def unit_fault(self, box: Box, width: int, height: int) -> str | None:
        """Return the fault of a box that lies far outside its image, because its numbers are pixels, or None."""
        if self.unit == "pixels":
            return None
        if min(box[0] / width, box[1] / height) >= -1 and max(box[2] / width, box[3] / height) <= 2:
            return None
        whole = _WHOLE[self.unit]
        return (
            f"expected coordinates relative to the image size, 0 to {whole:g}, found "
            f"{self.written(box, width, height)}, maybe pixels"
        )


class BoxStatistics:
    """Collects the unclipped boxes of a dataset, and finds faults that only all boxes together show.

    Args:
        numbers: declared meaning of the numbers.
    """

    def __init__(self, numbers: BoxNumbers) -> None:
        self.numbers = numbers
        self._boxes, self._sizes, self._areas = array("d"), array("d"), array("d")
        self._images: list[AnnotatedImage] = []

    def add(self, box: Box, area: float | None, image: AnnotatedImage) -> None:
        """Add a box that the file holds as four numbers, with the area that the file declares for the object."""
        self._boxes.extend(box)
        self._sizes.extend((image.width, image.height))
        self._areas.append(np.nan if area is None else area)
        self._images.append(image)

    def fault(self) -> str | None:
        """Return the fault of numbers in another order or unit than declared, or None."""
        if len(self._images) < _MIN_OBJECTS:
            return None
        boxes_O4, sizes_O2, areas_O = self._arrays()
        largest = float((boxes_O4[:, 2:] / sizes_O2).max())
        if self.numbers.unit == "percent" and 0 < largest <= 1 / 100:
            return (
                f"expected percent of the image size, 0 to 100, found only numbers up to {largest * 100:.3g}: maybe "
                f"fractions. {self._examples(range(EXAMPLES))}"
            )
        return self._order_fault(boxes_O4, sizes_O2, areas_O)

    def notes(self) -> list[str]:
        """Return sentences about boxes that are possible, but worth a look."""
        if not self._images:
            return []
        boxes_O4, sizes_O2, _ = self._arrays()
        count = len(boxes_O4)
        over_O = _over_edge(boxes_O4, sizes_O2).max(axis=1)
        notes = []
        over_edge = np.flatnonzero((over_O > 1) & _is_ordered(boxes_O4))
        if over_edge.size:
            order = over_edge[np.argsort(-over_O[over_edge], kind="stable")]
            advice = "; maybe the images were made smaller after annotation" if over_edge.size > count / 4 else ""
            notes.append(
                f"{over_edge.size:,} of {count:,} boxes reach over the edge of their image by more than 1 pixel, up to "
                f"{over_O.max():.0f} pixels, and are clipped or left out{advice}. {self._examples(order)}"
            )
        right, bottom = (boxes_O4[:, 2:] / sizes_O2).max(axis=0).tolist()
        images = len({id(image) for image in self._images})
        enough = count >= _MIN_UPPER_LEFT[0] and images >= _MIN_UPPER_LEFT[1]
        if enough and self.numbers.unit == "pixels" and max(right, bottom) < 0.5:
            notes.append(
                f"all {count:,} boxes lie in the upper left {right:.0%} x {bottom:.0%} of their images; maybe the "
                f"images were made larger after annotation, or the numbers are percent. {self._examples(range(count))}"
            )
        return notes

    def _arrays(self) -> tuple[Floats, Floats, Floats]:
        """Return the boxes, the image sizes (width, height) and the declared areas (NaN if missing)."""
        boxes, sizes, areas = (np.frombuffer(values) for values in (self._boxes, self._sizes, self._areas))
        return boxes.reshape(-1, 4), sizes.reshape(-1, 2), areas

    def _order_fault(self, boxes_O4: Floats, sizes_O2: Floats, areas_O: Floats) -> str | None:
        """Return the fault if the boxes fit their images, and the declared areas, only in another order."""
        has_area_O = np.isfinite(areas_O)
        numbers_O4 = _to_order(boxes_O4, self.numbers.order)
        wrong_O = ~_fits(boxes_O4, sizes_O2)
        wrong_area_O = has_area_O & ~_has_area(boxes_O4, areas_O)
        with_area = int(has_area_O.sum())
        if with_area >= _MIN_OBJECTS and wrong_area_O.sum() < 0.5 * with_area:
            return None  # the areas confirm the declared order
        for other in ORDER_NAMES:
            if other == self.numbers.order:
                continue
            other_O4 = _from_order(numbers_O4, other)
            right_O = _fits(other_O4, sizes_O2)
            right_area_O = has_area_O & _has_area(other_O4, areas_O)
            by_area = with_area >= _MIN_OBJECTS and right_area_O.sum() > 0.9 * with_area
            if right_O.mean() < (0.9 if by_area else _RIGHT_SHARE):
                continue
            if by_area or wrong_O.sum() >= max(_MIN_WRONG, _WRONG_SHARE * len(wrong_O)):
                return self._order_message(other, wrong_O, right_O, (wrong_area_O, right_area_O, with_area))
        return None

    def _order_message(
        self,
        other: Order,
        wrong_O: npt.NDArray[np.bool_],
        right_O: npt.NDArray[np.bool_],
        areas: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], int],
    ) -> str:
        wrong_area_O, right_area_O, with_area = areas
        count = len(wrong_O)
        declared, name = ORDER_NAMES[self.numbers.order], ORDER_NAMES[other]
        what = f"{wrong_O.sum():,} of {count:,} boxes have no area or reach over the edge of their image"
        inside = f"{right_O.sum():,} of {count:,} lie inside their image"
        if with_area:
            what += f", and {wrong_area_O.sum():,} of {with_area:,} areas differ from width x height"
            inside += f" and {right_area_O.sum():,} of {with_area:,} areas are equal"
        corners = "corners instead of sizes" if other == "xyxy" else f"another order than {declared}"
        return (
            f"expected boxes as {declared}, found maybe {corners}. Read as {declared}, {what}. Read as {name}, "
            f"{inside}. {self._examples(np.flatnonzero(wrong_O | wrong_area_O))}"
        )

    def _examples(self, indices: Sequence[int] | range | npt.NDArray[np.intp]) -> str:
        """Return the first boxes of some indices, as the file holds their numbers."""
        texts = []
        for index in list(indices[:EXAMPLES]):
            image = self._images[index]
            box = self._boxes[4 * index : 4 * index + 4]
            texts.append(f"{image.path.name}: {self.numbers.written(box, image.width, image.height)}")
        return f"Examples: {'; '.join(texts)}"


def _to_order(boxes_O4: Floats, order: Order) -> Floats:
    """Return xyxy boxes as numbers in another order."""
    if order == "xyxy":
        return boxes_O4
    corner_O2, sides_O2 = boxes_O4[:, :2], boxes_O4[:, 2:] - boxes_O4[:, :2]
    return np.concatenate([corner_O2 if order == "xywh" else corner_O2 + sides_O2 / 2, sides_O2], axis=1)


def _from_order(numbers_O4: Floats, order: Order) -> Floats:
    """Return xyxy boxes from numbers in another order."""
    if order == "xyxy":
        return numbers_O4
    place_O2, sides_O2 = numbers_O4[:, :2], numbers_O4[:, 2:]
    corner_O2 = place_O2 if order == "xywh" else place_O2 - sides_O2 / 2
    return np.concatenate([corner_O2, corner_O2 + sides_O2], axis=1)


def _is_ordered(boxes_O4: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray((boxes_O4[:, 2:] > boxes_O4[:, :2]).all(axis=1))


def _over_edge(boxes_O4: Floats, sizes_O2: Floats) -> Floats:
    """Return the distances (x, y) in pixels by which each box reaches over the edge of its image; below 0 inside."""
    return np.asarray(np.maximum(-boxes_O4[:, :2], boxes_O4[:, 2:] - sizes_O2))


def _fits(boxes_O4: Floats, sizes_O2: Floats) -> npt.NDArray[np.bool_]:
    """Return whether each box has an area and lies inside its image, apart from a small part over the edge."""
    return _is_ordered(boxes_O4) & (_over_edge(boxes_O4, sizes_O2) <= 1 + _EDGE * sizes_O2).all(axis=1)


def _has_area(boxes_O4: Floats, areas_O: Floats) -> npt.NDArray[np.bool_]:
    """Return whether the area of each box equals the declared area, up to rounding of the coordinates."""
    sides_O2 = boxes_O4[:, 2:] - boxes_O4[:, :2]
    rounding_O = 1 + np.abs(sides_O2).sum(axis=1) * 0.01
    return np.asarray(np.abs(sides_O2.prod(axis=1) - areas_O) <= _AREA_TOLERANCE * np.abs(areas_O) + rounding_O)
