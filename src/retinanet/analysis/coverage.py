"""Measure how well the anchors cover the objects at the size of the network's input.

As in training, the anchors come from `AnchorGenerator` on the padded image, and the options name the assigner.
Boxes are xyxy in input pixels. Shape suffixes: O objects of all images, P images, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from retinanet.analysis.imbalance import SIZE_LIMITS, SIZES
from retinanet.config import ImageConfig, MatchConfig, ModelConfig
from retinanet.images import resized_size
from retinanet.matching import Assigner, make_assigner
from retinanet.model import AnchorGenerator
from retinanet.ops.matching_torch import best_anchors
from retinanet.types import Target

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from retinanet.config import TrainConfig
    from retinanet.data import DetectionData, Record

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

MOST_IMAGES: Final = 500
"""Maximum number of images measured before training; a larger dataset is sampled evenly."""
MOST_OBJECTS: Final = 5000
"""Approximate maximum number of objects in a sample of images: the standard error of a share is then 0.7 % or less."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """Coverage of the objects by the anchors. Crowd regions are left out, because they need no positive anchor.

    Args:
        classes: name of each class id.
        levels: levels of the feature pyramid.
        label_O: class id of each object.
        image_O: index of each object's image in the data.
        object_O: index of each object in the record of its image.
        band_O: COCO size of each object, an index into `imbalance.SIZES`.
        width_O, height_O: sides of each object, input pixels.
        best_iou_O: highest IoU of each object with any anchor.
        level_O: index of the level of the anchor with the highest IoU.
        positives_O: number of positive anchors of each object; training learns nothing from an object with 0.
        anchors_P3: numbers of positive, ignored and negative anchors of each image.
        positives_L: positive anchors of each level, over all images.
        anchors_L: anchors of each level, over all images.
    """

    classes: tuple[str, ...]
    levels: tuple[int, ...]
    label_O: Ints
    image_O: Ints
    object_O: Ints
    band_O: Ints
    width_O: Floats
    height_O: Floats
    best_iou_O: Floats
    level_O: Ints
    positives_O: Ints
    anchors_P3: Ints
    positives_L: Ints
    anchors_L: Ints

    @property
    def objects(self) -> int:
        """Number of objects."""
        return len(self.label_O)

    @property
    def reached_O(self) -> npt.NDArray[np.bool_]:
        """True for each object with a positive anchor."""
        return self.positives_O > 0

    @property
    def unreached(self) -> int:
        """Number of objects without a positive anchor."""
        return int((~self.reached_O).sum())

    @property
    def share(self) -> float:
        """Share of the objects with a positive anchor; 1 if the data has no object."""
        return float(self.reached_O.mean()) if self.objects else 1.0

    def per_class(self) -> list[tuple[str, int, int]]:
        """Return (class name, unreached, objects) of each class with objects, the highest unreached share first."""
        return _worst_first(
            (name, int((~self.reached_O & (self.label_O == k)).sum()), int((self.label_O == k).sum()))
            for k, name in enumerate(self.classes)
        )

    def per_band(self) -> list[tuple[str, int, int]]:
        """Return (COCO size, unreached, objects) of each size with objects, the highest unreached share first."""
        return _worst_first(
            (name, int((~self.reached_O & (self.band_O == i)).sum()), int((self.band_O == i).sum()))
            for i, name in enumerate(SIZES)
        )

    def sentence(self, *, can_fit: bool = True) -> str:
        """Return the coverage and, if objects are not covered, what helps.

        Args:
            can_fit: whether anchors fitted to the data may help; false if the anchors are fitted already.
        """
        images = len(self.anchors_P3)
        if not self.unreached:
            return f"all {self.objects} objects of {images} images have a positive anchor"
        classes = ", ".join(f"{name} {n} of {total}" for name, n, total in self.per_class()[:5] if n)
        return (
            f"{self.unreached} of {self.objects} objects ({self.unreached / self.objects:.1%}) of {images} "
            f"images have no positive anchor at this size, so that the model hardly learns them: {classes}. Use "
            f"{'anchors fitted to the data (--anchors auto), ' if can_fit else ''}larger images (--image-size, "
            "--max-size) or --low-quality-matches."
        )


def coverage(
    data: DetectionData,
    *,
    model_config: ModelConfig,
    match_config: MatchConfig,
    image_config: ImageConfig,
    images: int | None = None,
) -> Coverage:
    """Match the objects with the anchors, by the functions that training uses.

    Args:
        data: images and objects.
        model_config: anchors and levels.
        match_config: the assigner and its IoU thresholds.
        image_config: the size of the network's input.
        images: maximum number of images in an even sample with about `MOST_OBJECTS` objects; None for all images.
    """
    chosen = sampled_images(data, images)
    anchors, assign = _Anchors(model_config, image_config), make_assigner(match_config)
    rows: list[_Row] = []
    L = len(model_config.levels)
    positives_L, anchors_L = np.zeros(L, dtype=np.int64), np.zeros(L, dtype=np.int64)
    for index in chosen:
        row = _measure(data.records[index], index, anchors, assign)
        rows.append(row)
        positives_L += row.positives_L
        anchors_L += row.anchors_L

    def column(values: Sequence[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
        return np.concatenate([np.empty(0, dtype), *values]).astype(dtype)

    return Coverage(
        classes=data.classes,
        levels=model_config.levels,
        label_O=column([row.label_O for row in rows], np.int64),
        image_O=column([np.full(len(row.label_O), row.image) for row in rows], np.int64),
        object_O=column([row.object_O for row in rows], np.int64),
        band_O=column([row.band_O for row in rows], np.int64),
        width_O=column([row.sides_O2[:, 0] for row in rows], np.float64),
        height_O=column([row.sides_O2[:, 1] for row in rows], np.float64),
        best_iou_O=column([row.best_iou_O for row in rows], np.float64),
        level_O=column([row.level_O for row in rows], np.int64),
        positives_O=column([row.positives_O for row in rows], np.int64),
        anchors_P3=np.array([row.anchors_3 for row in rows], dtype=np.int64).reshape(-1, 3),
        positives_L=positives_L,
        anchors_L=anchors_L,
    )


def sampled_images(data: DetectionData, images: int | None) -> range:
    """Return the indices of the images that `coverage` measures, see its argument `images`."""
    chosen = range(len(data.records))
    if images is None:
        return chosen
    return chosen[:: max(1, -(-len(chosen) // images), round(data.num_objects / MOST_OBJECTS))]


def training_coverage(data: DetectionData, config: TrainConfig) -> Coverage:
    """Return the coverage by the anchors of a training run, measured on an even sample of the data."""
    return coverage(
        data,
        model_config=config.model,
        match_config=config.matching,
        image_config=config.image,
        images=MOST_IMAGES,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """Values of one image that `coverage` joins to columns."""

    image: int
    label_O: Ints
    object_O: Ints
    band_O: Ints
    sides_O2: Floats
    best_iou_O: Floats
    level_O: Ints
    positives_O: Ints
    anchors_3: tuple[int, int, int]
    positives_L: Ints
    anchors_L: Ints


class _Anchors:
    """Cache of the anchors of a padded input; images of the same size share their anchors."""

    def __init__(self, model_config: ModelConfig, image_config: ImageConfig) -> None:
        self.generator = AnchorGenerator(config=model_config)
        self.image_config = image_config
        self.cache: dict[tuple[int, int], tuple[Tensor, tuple[int, ...]]] = {}

    def for_size(self, width: int, height: int) -> tuple[Tensor, tuple[int, ...]]:
        """Return anchors_A4 (xyxy, input pixels) and the number of anchors per level for a resized image."""
        divisor = self.image_config.size_divisor
        padded = (-(-width // divisor) * divisor, -(-height // divisor) * divisor)
        if padded not in self.cache:
            sizes = [(-(-padded[1] // stride), -(-padded[0] // stride)) for stride in self.generator.strides]
            if len(self.cache) >= 16:  # keep memory small if the images have many sizes
                self.cache.clear()
            self.cache[padded] = self.generator(sizes, like=torch.zeros(()), input_size=(padded[1], padded[0]))
        return self.cache[padded]


def input_boxes(record: Record, image_config: ImageConfig) -> tuple[Tensor, tuple[int, int]]:
    """Return all boxes of a record in input pixels, float32, and the (width, height) of the resized image."""
    width, height = resized_size(
        record.width, record.height, image_size=image_config.image_size, max_size=image_config.max_size
    )
    scale = torch.tensor([width / record.width, height / record.height] * 2, dtype=torch.float64)
    return (torch.from_numpy(record.boxes_G4) * scale).float(), (width, height)


def _measure(record: Record, index: int, anchors: _Anchors, assign: Assigner) -> _Row:
    boxes_G4, (width, height) = input_boxes(record, anchors.image_config)
    anchors_A4, per_level = anchors.for_size(width, height)
    crowd_G = torch.from_numpy(record.crowd_G)
    target = Target(boxes_G4=boxes_G4, labels_G=torch.from_numpy(record.labels_G), crowd_G=crowd_G)
    targets = assign(anchors_A4, [target], anchors_per_level=per_level)
    positive_A, ignored_A = targets.positive_NA[0], targets.ignored_NA[0]
    positives_G = torch.bincount(targets.matched_NA[0][positive_A], minlength=len(boxes_G4))
    object_O = torch.nonzero(~crowd_G).squeeze(1)
    best_iou, best_anchor = best_anchors(anchors_A4, boxes_G4[object_O])
    level_A = torch.repeat_interleave(torch.arange(len(per_level)), torch.tensor(per_level))
    areas_O = record.areas_G[object_O.numpy()]
    positives = int(positive_A.sum())
    ignored = int(ignored_A.sum())
    return _Row(
        image=index,
        label_O=record.labels_G[object_O.numpy()],
        object_O=object_O.numpy(),
        band_O=np.digitize(areas_O, SIZE_LIMITS),
        sides_O2=(boxes_G4[object_O, 2:] - boxes_G4[object_O, :2]).double().numpy(),
        best_iou_O=best_iou.double().numpy(),
        level_O=level_A[best_anchor].numpy(),
        positives_O=positives_G[object_O].numpy(),
        anchors_3=(positives, ignored, len(positive_A) - positives - ignored),
        positives_L=torch.bincount(level_A[positive_A], minlength=len(per_level)).numpy(),
        anchors_L=np.array(per_level, dtype=np.int64),
    )


def _worst_first(rows: object) -> list[tuple[str, int, int]]:
    with_objects = [row for row in rows if row[2]]  # type: ignore[attr-defined]
    return sorted(with_objects, key=lambda row: (-row[1] / row[2], -row[1]))
