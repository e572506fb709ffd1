"""The record of a place with a large gradient: an object, or a box that the network predicts on background.

This module is torch-free. `gradient_places` finds the places of an image.

Shape suffixes: E places, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

PLACES: Final = 12
"""Number of places with the largest gradient that the microscope shows."""
PlaceKind = Literal["object", "unlabelled?", "wrong class?", "distant anchor", "background"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An object, or a box that the network predicts on background, with its examples.

    Args:
        kind: "object"; for background: "unlabelled?" (see `per_image.probably_unlabelled`), "wrong class?"
            (over an object of another class), "distant anchor" (over an object of its class, predicted from an anchor
            too far away to be positive) or "background".
        image: index of the image in the data.
        box: xyxy, original pixels; the ground-truth box of an object, the predicted box of background.
        label: class id; the label of an object, the predicted class of background.
        object_label: class id of the object that lies under a background box; None if no object does.
        logits: wrong logits of its examples. For an object: of its class at its positive anchors. For background: of
            the hardest background examples whose predicted boxes overlap the box.
    """

    kind: PlaceKind
    image: int
    box: tuple[float, float, float, float]
    label: int
    object_label: int | None
    logits: tuple[float, ...]

    @property
    def is_object(self) -> bool:
        """Whether the place is an object, with positive examples."""
        return self.kind == "object"

    @property
    def score(self) -> float:
        """Highest score of the class among the examples."""
        wrong = min(self.logits) if self.is_object else max(self.logits)
        return float(np.exp(-np.logaddexp(0, wrong if self.is_object else -wrong)))


def best_places(gradient_EC: Floats, count: int = PLACES) -> Ints:
    """Return the indices of the places that are among the `count` largest in a column, in rising order.

    Args:
        gradient_EC: gradient of each place E in each column C. Of equal gradients, the first place is chosen.
        count: number of places of each column.
    """
    order_EC = np.argsort(-gradient_EC, axis=0, kind="stable")[:count]
    found: Ints = np.unique(order_EC)
    return found
