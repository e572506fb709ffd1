"""What the anchors can reach, before hours of training find out: objects that no anchor would answer for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from retinanet.images import resized_size
from retinanet.matching import match
from retinanet.model import AnchorGenerator
from retinanet.types import Target

if TYPE_CHECKING:
    from retinanet.config import TrainConfig
    from retinanet.data import DetectionData

MOST_PICTURES: Final = 500
"""Beyond this many, an even sample of the pictures is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """How many objects have a positive anchor at the size the network sees them.

    Args:
        pictures: measured.
        objects: in them, crowd regions left out.
        unreached: of these, without a positive anchor.
        unreached_per_class: (class name, unreached, objects), for classes with any unreached, worst first.
    """

    pictures: int
    objects: int
    unreached: int
    unreached_per_class: tuple[tuple[str, int, int], ...]

    def sentence(self) -> str:
        """Return the finding in words."""
        if not self.unreached:
            return f"all {self.objects} objects of {self.pictures} pictures have a positive anchor"
        classes = ", ".join(f"{name} {n} of {total}" for name, n, total in self.unreached_per_class[:5])
        return (
            f"{self.unreached} of {self.objects} objects ({self.unreached / self.objects:.1%}) of {self.pictures} "
            f"pictures have no positive anchor at this size and will hardly be learnt: {classes}. Larger pictures "
            "(--image-size, --max-size), smaller --anchor-sizes, other --anchor-ratios or --low-quality-matches help."
        )


def reach(data: DetectionData, config: TrainConfig) -> Reach:
    """Match the objects of the data with the anchors that training would use, by the same functions."""
    generator = AnchorGenerator(config=config)
    step = max(1, len(data.records) // MOST_PICTURES)
    records = data.records[::step][:MOST_PICTURES]
    objects = torch.zeros(len(data.classes), dtype=torch.int64)
    reached = torch.zeros_like(objects)
    for record in records:
        width, height = resized_size(
            record.width, record.height, image_size=config.image_size, max_size=config.max_size
        )
        scale = torch.tensor([width / record.width, height / record.height] * 2)
        keep = torch.from_numpy(~record.crowd_G)
        labels_G = torch.from_numpy(record.labels_G)[keep]
        if not len(labels_G):
            continue
        target = Target(
            boxes_G4=torch.from_numpy(record.boxes_G4)[keep].float() * scale,
            labels_G=labels_G,
            crowd_G=torch.zeros(len(labels_G), dtype=torch.bool),
        )
        divisor = config.size_divisor
        padded_width, padded_height = (-(-side // divisor) * divisor for side in (width, height))
        sizes = [(-(-padded_height // stride), -(-padded_width // stride)) for stride in generator.strides]
        anchors_A4, _ = generator(sizes, like=target.boxes_G4)
        found = match(anchors_A4, [target], config)
        matched = torch.unique(found.matched_NA[found.positive_NA])
        objects += torch.bincount(labels_G, minlength=len(objects))
        reached += torch.bincount(labels_G[matched], minlength=len(objects))
    missing = objects - reached
    per_class = [
        (data.classes[k], int(missing[k]), int(objects[k])) for k in missing.argsort(descending=True) if missing[k] > 0
    ]
    return Reach(
        pictures=len(records),
        objects=int(objects.sum()),
        unreached=int(missing.sum()),
        unreached_per_class=tuple(per_class),
    )
