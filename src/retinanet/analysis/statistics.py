"""Count the images, objects and classes of a dataset, and the sizes of its objects.

Shape suffixes: K classes, P images, O objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.former_names import with_former_fields

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.data import DetectionData


@dataclass(frozen=True, kw_only=True, eq=False)
class DataStatistics:
    """Counts of a dataset. Only `crowd` includes ignore regions.

    Args:
        classes: name of each class id.
        images: number of images.
        empty: number of images without objects.
        crowd: number of ignore regions, such as crowd regions and difficult objects.
        objects_K: number of objects of each class.
        images_K: number of images with an object of each class.
        per_image_P: number of objects in each image.
        width_O, height_O: sides of each object, original pixels.
        label_O: class id of each object.
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
        """Number of objects."""
        return len(self.label_O)

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the percentiles of sides and aspect ratios as plain values for JSON."""
        sides_O = np.sqrt(self.width_O * self.height_O)
        quantiles = (0, 5, 25, 50, 75, 95, 100)

        def percentiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
            return {str(q): float(v) for q, v in zip(quantiles, np.percentile(values, quantiles), strict=True)}

        return with_former_fields(
            {
                "images": self.images,
                "empty_images": self.empty,
                "objects": self.objects,
                "crowd": self.crowd,
                "classes": {
                    name: with_former_fields({"objects": int(n), "images": int(p)})
                    for name, n, p in zip(self.classes, self.objects_K, self.images_K, strict=True)
                },
                "class_imbalance": self.imbalance,
                "objects_per_image": percentiles(self.per_image_P.astype(np.float64)) if self.images else {},
                "side_pixels": percentiles(sides_O) if self.objects else {},
                "height_over_width": percentiles(self.height_O / self.width_O) if self.objects else {},
            }
        )

    @property
    def imbalance(self) -> float | None:
        """Objects of the most frequent class per object of the rarest class with objects; None without objects."""
        present = self.objects_K[self.objects_K > 0]
        return float(present.max() / present.min()) if len(present) else None

    def sentences(self) -> list[str]:
        """Return sentences about the counts and the sizes."""
        sentences = [
            f"{self.images:,} images with {self.objects:,} objects of {len(self.classes)} classes; "
            f"{self.empty:,} images without objects, {self.crowd:,} ignore regions (crowd, difficult)."
        ]
        if self.objects:
            sides = np.sqrt(self.width_O * self.height_O)
            low, median, high = np.percentile(sides, [5, 50, 95])
            flat, tall = np.percentile(self.height_O / self.width_O, [5, 95])
            sentences.append(
                f"{self.objects / self.images:.1f} objects per image, at most {self.per_image_P.max()}. The median "
                f"side is {median:.0f} pixels; 5 % of the sides are below {low:.0f} and 5 % above {high:.0f} pixels. "
                f"Height divided by width is {flat:.2f} to {tall:.2f} for 90 % of the objects."
            )
        return sentences


def statistics(data: DetectionData) -> DataStatistics:
    """Count the images and objects of a dataset."""
    K = len(data.classes)
    objects = [(record, ~record.crowd_G) for record in data.records]
    labels = [record.labels_G[is_object] for record, is_object in objects]
    boxes = np.concatenate([np.empty((0, 4)), *(record.boxes_G4[is_object] for record, is_object in objects)])
    label_O = np.concatenate([np.empty(0, np.int64), *labels])
    return DataStatistics(
        classes=data.classes,
        images=len(data.records),
        empty=sum(not len(labels_G) for labels_G in labels),
        crowd=data.num_crowd,
        objects_K=np.bincount(label_O, minlength=K),
        images_K=np.array([sum(k in labels_G for labels_G in labels) for k in range(K)], dtype=np.int64),
        per_image_P=np.array([len(labels_G) for labels_G in labels], dtype=np.int64),
        width_O=boxes[:, 2] - boxes[:, 0],
        height_O=boxes[:, 3] - boxes[:, 1],
        label_O=label_O,
    )
