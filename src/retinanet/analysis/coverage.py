"""What the anchors reach at the real training size, before hours of training find out.

The anchors are those of `AnchorGenerator` on the padded image, and the assigner is the one that the options name:
what training does.
Boxes are xyxy in input pixels. Shape suffixes: O objects of all images, P images, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from retinanet.config import ImageConfig, MatchConfig, ModelConfig
from retinanet.images import resized_size
from retinanet.matching import Assigner, make_assigner
from retinanet.model import AnchorGenerator
from retinanet.ops.matching import best_overlaps
from retinanet.types import Target

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from retinanet.config import TrainConfig
    from retinanet.data import DetectionData, Record

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

MOST_IMAGES: Final = 500
"""Beyond this many, an even sample of the images is measured before training."""
MOST_OBJECTS: Final = 5000
"""And beyond this many objects, an even sample of images with about so many: a share is then known to 0.7 %."""
BANDS: Final = ("small", "medium", "large")
"""COCO's sizes: below 32², below 96², and above, square pixels of the original image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """What the anchors reach. Crowd regions are left out: nothing has to reach them.

    Args:
        classes: the name of each class id.
        levels: of the pyramid.
        label_O: class id of each object.
        image_O: the number of its image in the data.
        object_O: its number within the image's record.
        band_O: its COCO size, an index of `BANDS`.
        width_O, height_O: in the network's input, pixels.
        best_iou_O: the highest IoU that any anchor has with it.
        level_O: index of the level of that anchor.
        positives_O: how many anchors answer for it. 0: the object teaches nothing.
        anchors_P3: positive, ignored and negative anchors of each image.
        positives_L: positive anchors of each level.
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
        """How many there are."""
        return len(self.label_O)

    @property
    def reached_O(self) -> npt.NDArray[np.bool_]:
        """Whether each object has a positive anchor."""
        return self.positives_O > 0

    @property
    def unreached(self) -> int:
        """Objects without a positive anchor."""
        return int((~self.reached_O).sum())

    @property
    def share(self) -> float:
        """Share of the objects with a positive anchor; 1 where there are none."""
        return float(self.reached_O.mean()) if self.objects else 1.0

    def per_class(self) -> list[tuple[str, int, int]]:
        """Return (class name, unreached, objects), for all classes with objects, worst share first."""
        return _worst_first(
            (name, int((~self.reached_O & (self.label_O == k)).sum()), int((self.label_O == k).sum()))
            for k, name in enumerate(self.classes)
        )

    def per_band(self) -> list[tuple[str, int, int]]:
        """Return (COCO size, unreached, objects), likewise."""
        return _worst_first(
            (name, int((~self.reached_O & (self.band_O == i)).sum()), int((self.band_O == i).sum()))
            for i, name in enumerate(BANDS)
        )

    def sentence(self) -> str:
        """Return the finding in words."""
        images = len(self.anchors_P3)
        if not self.unreached:
            return f"all {self.objects} objects of {images} images have a positive anchor"
        classes = ", ".join(f"{name} {n} of {total}" for name, n, total in self.per_class()[:5] if n)
        return (
            f"{self.unreached} of {self.objects} objects ({self.unreached / self.objects:.1%}) of {images} "
            f"images have no positive anchor at this size and will hardly be learnt: {classes}. Anchors fitted to "
            "the data (--anchors auto), larger images (--image-size, --max-size) or --low-quality-matches help."
        )


def coverage(
    data: DetectionData,
    *,
    model_config: ModelConfig,
    match_config: MatchConfig,
    image_config: ImageConfig,
    images: int | None = None,
) -> Coverage:
    """Match the objects of the data with the anchors that training would use, by the same functions.

    Args:
        data: images and objects.
        model_config: its anchors and levels.
        match_config: what is positive.
        image_config: the size of the input.
        images: measure an even sample of at most so many, with about `MOST_OBJECTS` objects; None: all of them.
    """
    chosen = range(len(data.records))
    if images is not None:
        chosen = chosen[:: max(1, -(-len(chosen) // images), round(data.num_objects / MOST_OBJECTS))]
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


def reach(data: DetectionData, config: TrainConfig) -> Coverage:
    """Return the coverage of (a sample of) the data by the anchors of a training run."""
    return coverage(
        data,
        model_config=config.model,
        match_config=config.matching,
        image_config=config.image,
        images=MOST_IMAGES,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Row:
    """One image's part of the columns."""

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
    """The anchors of an image's padded input; images of one size share them."""

    def __init__(self, model_config: ModelConfig, image_config: ImageConfig) -> None:
        self.generator = AnchorGenerator(config=model_config)
        self.image_config = image_config
        self.known: dict[tuple[int, int], tuple[Tensor, tuple[int, ...]]] = {}

    def of(self, width: int, height: int) -> tuple[Tensor, tuple[int, ...]]:
        """Return anchors_A4 and their number per level for a resized image."""
        divisor = self.image_config.size_divisor
        padded = (-(-width // divisor) * divisor, -(-height // divisor) * divisor)
        if padded not in self.known:
            sizes = [(-(-padded[1] // stride), -(-padded[0] // stride)) for stride in self.generator.strides]
            if len(self.known) >= 16:  # images of all sizes must not fill the memory with anchors
                self.known.clear()
            self.known[padded] = self.generator(sizes, like=torch.zeros(()), input_size=(padded[1], padded[0]))
        return self.known[padded]


def input_boxes(record: Record, image_config: ImageConfig) -> tuple[Tensor, tuple[int, int]]:
    """Return all boxes of a record in input pixels, float32, and the (width, height) of the resized image."""
    width, height = resized_size(
        record.width, record.height, image_size=image_config.image_size, max_size=image_config.max_size
    )
    scale = torch.tensor([width / record.width, height / record.height] * 2, dtype=torch.float64)
    return (torch.from_numpy(record.boxes_G4) * scale).float(), (width, height)


def _measure(record: Record, index: int, anchors: _Anchors, assign: Assigner) -> _Row:
    boxes_G4, (width, height) = input_boxes(record, anchors.image_config)
    anchors_A4, per_level = anchors.of(width, height)
    crowd_G = torch.from_numpy(record.crowd_G)
    target = Target(boxes_G4=boxes_G4, labels_G=torch.from_numpy(record.labels_G), crowd_G=crowd_G)
    found = assign(anchors_A4, [target], anchors_per_level=per_level)
    positive_A, ignored_A = found.positive_NA[0], found.ignored_NA[0]
    positives_G = torch.bincount(found.matched_NA[0][positive_A], minlength=len(boxes_G4))
    object_O = torch.nonzero(~crowd_G).squeeze(1)
    best_iou, best_anchor = _best_anchor(anchors_A4, boxes_G4[object_O])
    level_A = torch.repeat_interleave(torch.arange(len(per_level)), torch.tensor(per_level))
    areas_O = record.areas_G[object_O.numpy()]
    positives = int(positive_A.sum())
    ignored = int(ignored_A.sum())
    return _Row(
        image=index,
        label_O=record.labels_G[object_O.numpy()],
        object_O=object_O.numpy(),
        band_O=np.digitize(areas_O, [32.0**2, 96.0**2]),
        sides_O2=(boxes_G4[object_O, 2:] - boxes_G4[object_O, :2]).double().numpy(),
        best_iou_O=best_iou.double().numpy(),
        level_O=level_A[best_anchor].numpy(),
        positives_O=positives_G[object_O].numpy(),
        anchors_3=(positives, ignored, len(positive_A) - positives - ignored),
        positives_L=torch.bincount(level_A[positive_A], minlength=len(per_level)).numpy(),
        anchors_L=np.array(per_level, dtype=np.int64),
    )


def _best_anchor(anchors_A4: Tensor, boxes_O4: Tensor) -> tuple[Tensor, Tensor]:
    """Return each box's highest IoU with any anchor, and that anchor's number."""
    best, number = torch.zeros(len(boxes_O4)), torch.zeros(len(boxes_O4), dtype=torch.int64)
    for o in range(len(boxes_O4)):
        iou_A, _, _ = best_overlaps(anchors_A4, boxes_O4[o : o + 1])
        best[o], number[o] = iou_A.max(0)
    return best, number


def _worst_first(rows: object) -> list[tuple[str, int, int]]:
    kept = [row for row in rows if row[2]]  # type: ignore[attr-defined]
    return sorted(kept, key=lambda row: (-row[1] / row[2], -row[1]))
