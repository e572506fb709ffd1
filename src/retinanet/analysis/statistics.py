"""What is in a dataset, and what of it will make training harder than it need be.

Shape suffixes: K classes, P images, O objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.data import DetectionData


@dataclass(frozen=True, kw_only=True, eq=False)
class DataStatistics:
    """Counts of a dataset. Crowd regions are counted apart and nowhere else.

    Args:
        classes: the name of each class id.
        images: how many.
        empty: images without any object.
        crowd: crowd regions and difficult objects.
        objects_K: of each class.
        images_K: images with each class.
        per_image_P: objects of each image.
        width_O, height_O: of the objects, original pixels.
        label_O: their classes.
    """

    classes: tuple[str, ...]
    images: int
    empty: int
    crowd: int
    objects_K: npt.NDArray[np.int64]
    images_K: npt.NDArray[np.int64]
    per_image_P: npt.NDArray[np.int64]
    width_O: npt.NDArray[np.float64]
    height_O: npt.NDArray[np.float64]
    label_O: npt.NDArray[np.int64]

    @property
    def objects(self) -> int:
        """How many there are."""
        return len(self.label_O)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, of sides and shapes the percentiles, as plain numbers."""
        sides_O = np.sqrt(self.width_O * self.height_O)
        places = (0, 5, 25, 50, 75, 95, 100)

        def percentiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
            return {str(q): float(v) for q, v in zip(places, np.percentile(values, places), strict=True)}

        return {
            "images": self.images,
            "empty_images": self.empty,
            "objects": self.objects,
            "crowd": self.crowd,
            "classes": {
                name: {"objects": int(n), "images": int(p)}
                for name, n, p in zip(self.classes, self.objects_K, self.images_K, strict=True)
            },
            "class_imbalance": self.imbalance,
            "objects_per_image": percentiles(self.per_image_P.astype(np.float64)) if self.images else {},
            "side_pixels": percentiles(sides_O) if self.objects else {},
            "height_over_width": percentiles(self.height_O / self.width_O) if self.objects else {},
        }

    @property
    def imbalance(self) -> float | None:
        """Objects of the most frequent class over those of the rarest that has any; None without objects."""
        there = self.objects_K[self.objects_K > 0]
        return float(there.max() / there.min()) if len(there) else None

    def sentences(self) -> list[str]:
        """Return the counts in words."""
        said = [
            f"{self.images:,} images with {self.objects:,} objects of {len(self.classes)} classes; "
            f"{self.empty:,} images without objects, {self.crowd:,} crowd or difficult ones."
        ]
        if self.objects:
            sides = np.sqrt(self.width_O * self.height_O)
            low, middle, high = np.percentile(sides, [5, 50, 95])
            flat, tall = np.percentile(self.height_O / self.width_O, [5, 95])
            said.append(
                f"{self.objects / self.images:.1f} objects an image, at most {self.per_image_P.max()}; sides of "
                f"{middle:.0f} pixels in the middle, 5 % below {low:.0f} and 5 % above {high:.0f}; height over width "
                f"{flat:.2f} to {tall:.2f} for nine in ten."
            )
        return said


def statistics(data: DetectionData) -> DataStatistics:
    """Count what a dataset holds."""
    K = len(data.classes)
    kept = [(record, ~record.crowd_G) for record in data.records]
    labels = [record.labels_G[keep] for record, keep in kept]
    boxes = np.concatenate([np.empty((0, 4)), *(record.boxes_G4[keep] for record, keep in kept)])
    label_O = np.concatenate([np.empty(0, np.int64), *labels])
    return DataStatistics(
        classes=data.classes,
        images=len(data.records),
        empty=sum(not len(found) for found in labels),
        crowd=data.num_crowd,
        objects_K=np.bincount(label_O, minlength=K),
        images_K=np.array([sum(k in found for found in labels) for k in range(K)], dtype=np.int64),
        per_image_P=np.array([len(found) for found in labels], dtype=np.int64),
        width_O=boxes[:, 2] - boxes[:, 0],
        height_O=boxes[:, 3] - boxes[:, 1],
        label_O=label_O,
    )
