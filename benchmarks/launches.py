"""Count kernels and waits of matching, loss and post-processing on a GPU, beside torchvision, without a GPU.

The counts come from `tests/device_double.py`, which states what is counted. They are the same on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from harness import RESULTS
from r50_peer import CLASSES
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from retinanet.config import LossConfig, MatchConfig, ModelConfig, PostprocessConfig
from retinanet.images import Frame
from retinanet.losses import DetectionLoss
from retinanet.matching import match
from retinanet.model.anchors import AnchorGenerator
from retinanet.postprocess import postprocess
from retinanet.types import HeadOutputs, Target
from tests.device_double import DEVICE, double, to_double

HEIGHT, WIDTH = 256, 320
SIZES = [(-(-HEIGHT // 2**level), -(-WIDTH // 2**level)) for level in (3, 4, 5, 6, 7)]


def outputs_of(images: int) -> HeadOutputs:
    """Return random outputs of a network; about one score in 500 is above the threshold."""
    generator = torch.Generator().manual_seed(0)
    anchors_A4, per_level = AnchorGenerator(config=ModelConfig())(SIZES, like=torch.zeros(0))
    A = len(anchors_A4)
    return HeadOutputs(
        logits_NAK=torch.randn(images, A, CLASSES, generator=generator) - 6,
        deltas_NA4=torch.randn(images, A, 4, generator=generator) * 0.2,
        anchors_A4=anchors_A4,
        anchors_per_level=per_level,
    )


def targets_of(images: int, objects: int) -> list[Target]:
    """Return random objects of 16 to 96 pixels."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(images, objects, 2, generator=generator) * torch.tensor([WIDTH - 96.0, HEIGHT - 96.0])
    boxes = torch.cat([corners, corners + torch.rand(images, objects, 2, generator=generator) * 80 + 16], 2)
    labels = torch.randint(1, CLASSES, (images, objects), generator=generator)
    return [
        Target(boxes_G4=b, labels_G=k, crowd_G=torch.zeros_like(k, dtype=torch.bool))
        for b, k in zip(boxes, labels, strict=True)
    ]


def count(run: Callable[[], object]) -> str:
    """Return kernels / waits of a second call. The first call stores what later calls reuse."""
    with double() as counts:
        run()
        counts.clear()
        run()
        return f"{counts.kernels} / {counts.syncs}"


def training_rows(images: int, objects: int) -> dict[str, str]:
    """Return the counts of matching, loss and both together with the anchors."""
    outputs, targets = to_double(outputs_of(images)), to_double(targets_of(images, objects))
    config = MatchConfig(low_quality_matches=True)
    loss = DetectionLoss(config=LossConfig())
    anchors = AnchorGenerator(config=ModelConfig())
    with double():
        matched = match(outputs.anchors_A4, targets, config)

    def both() -> object:
        anchors_A4, _ = anchors(SIZES, like=outputs.logits_NAK)
        return loss(outputs, match(anchors_A4, targets, config))

    theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    their_targets = [{"boxes": t.boxes_G4, "labels": t.labels_G} for t in targets]
    heads = {"cls_logits": outputs.logits_NAK, "bbox_regression": outputs.deltas_NA4}

    def torchvisions() -> object:
        maps = [torch.empty(images, 1, *size, device=DEVICE) for size in SIZES]
        image_list = ImageList(torch.empty(images, 3, HEIGHT, WIDTH, device=DEVICE), [(HEIGHT, WIDTH)] * images)
        return theirs.compute_loss(their_targets, heads, theirs.anchor_generator(image_list, maps))

    return {
        "matching": count(lambda: match(outputs.anchors_A4, targets, config)),
        "loss": count(lambda: loss(outputs, matched)),
        "anchors, matching and loss": count(both),
        "torchvision: anchors, matching and loss": count(torchvisions),
    }


def prediction_rows(images: int) -> dict[str, str]:
    """Return the counts of post-processing."""
    outputs, config = to_double(outputs_of(images)), PostprocessConfig()
    frame = Frame(width=WIDTH, height=HEIGHT, resized_width=WIDTH, resized_height=HEIGHT)
    theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    levels = list(outputs.anchors_per_level)

    def torchvisions() -> object:
        split: dict[str, list[Tensor]] = {
            "cls_logits": list(outputs.logits_NAK.split(levels, dim=1)),  # type: ignore[no-untyped-call]
            "bbox_regression": list(outputs.deltas_NA4.split(levels, dim=1)),  # type: ignore[no-untyped-call]
        }
        anchors = [list(outputs.anchors_A4.split(levels))] * images  # type: ignore[no-untyped-call]
        found = theirs.postprocess_detections(split, anchors, [(HEIGHT, WIDTH)] * images)
        return [{name: values.cpu() for name, values in image.items()} for image in found]

    return {
        "post-processing": count(
            lambda: [image.numpy() for image in postprocess(outputs, frames=[frame] * images, config=config)]
        ),
        "torchvision: post-processing": count(torchvisions),
    }


def main() -> None:
    """Print and write the table."""
    columns = {f"{n} images, {g} objects": (n, g) for n in (2, 8) for g in (10, 100)}
    rows: dict[str, dict[str, str]] = {}
    for column, (images, objects) in columns.items():
        for name, cell in (training_rows(images, objects) | prediction_rows(images)).items():
            rows.setdefault(name, {})[column] = cell
    lines = ["## Kernels / waits of one call on a GPU", "", "| | " + " | ".join(columns) + " |"]
    lines += ["|" + "---|" * (len(columns) + 1)]
    lines += [f"| {name} | " + " | ".join(cells.values()) + " |" for name, cells in rows.items()]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "launches.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
