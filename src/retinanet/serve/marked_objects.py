"""Read the objects that a request marks in an image: a box and a class for each. Boxes are xyxy in original pixels.

Shape suffix: G objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from retinanet.errors import did_you_mean, list_names
from retinanet.serve.uploads import RefusedError

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class MarkedObjects:
    """Objects that should be in an image. A class id of -1 stands for the class that the model proposes."""

    boxes_G4: npt.NDArray[np.float64]
    labels_G: npt.NDArray[np.int64]

    @classmethod
    def parse(cls, boxes: Sequence[str], names: Sequence[str], classes: Sequence[str]) -> Self:
        """Return the objects of a request.

        Args:
            boxes: text "x1,y1,x2,y2" for each object.
            names: class of each object; an empty text stands for the class that the model proposes.
            classes: name of each class id of the model.

        Raises:
            RefusedError: 422, a box is invalid, a class is unknown, or their numbers differ.
        """
        if len(boxes) != len(names):
            raise RefusedError(
                422,
                f"box, class: expected a class for each box, found {len(boxes)} of box and {len(names)} of class: "
                "repeat both parameters, in the same order",
            )
        return cls(
            boxes_G4=np.array([_box(text) for text in boxes], np.float64).reshape(-1, 4),
            labels_G=np.array([label_of(name, classes, "class") if name else -1 for name in names], np.int64),
        )

    def check_inside(self, width: int, height: int) -> None:
        """Raise `RefusedError` 422 if a box lies partly outside of the image."""
        for x1, y1, x2, y2 in self.boxes_G4.tolist():
            if min(x1, y1) < 0 or x2 > width or y2 > height:
                raise RefusedError(
                    422,
                    f"box: expected a box inside the image of {width} x {height} pixels, found "
                    f"{x1:g},{y1:g},{x2:g},{y2:g}: give the box in pixels of the original image",
                )


def label_of(name: str, classes: Sequence[str], parameter: str) -> int:
    """Return the class id of a class. Raises `RefusedError` 422, which names the parameter, if the model lacks it."""
    if name not in classes:
        raise RefusedError(
            422,
            f"{parameter}: expected a class of the model ({list_names(classes)}), found {name[:100]!r}"
            f"{did_you_mean(name, classes)}",
        )
    return classes.index(name)


def _box(text: str) -> list[float]:
    try:
        box = [float(value) for value in text.split(",")]
    except ValueError:
        box = []
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise RefusedError(
            422,
            f"box: expected four numbers x1,y1,x2,y2, found {text[:100]!r}: give the left, top, right and bottom "
            "edge of the object in pixels",
        )
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        raise RefusedError(
            422,
            f"box: expected x1 < x2 and y1 < y2, found {text[:100]!r}: give the top left corner first",
        )
    return box
