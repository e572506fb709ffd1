"""Embed images with their objects and detections, whose boxes a script draws for each score threshold.

Boxes are xyxy, original pixels. Shape suffixes: G ground-truth boxes, D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.outcomes import UNLABELLED
from retinanet.images import decode_for_display
from retinanet.report.html import jpeg

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.analysis.outcomes import ImageOutcomes, Outcomes

    Ints = npt.NDArray[np.integer]

MAX_IMAGES: Final = 120
"""Maximum number of embedded images."""
MAX_BYTES: Final = 5_000_000
"""Maximum size of all embedded images in base64, bytes."""
MAX_BOXES: Final = 300
"""Maximum number of detections of an image that are embedded, those with the highest scores."""
STATIC: Final = 12
"""Number of images that are shown without a script, and at a time with it."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedImage:
    """An embedded image: its index in the data, its name, its size in original pixels, and its JPEG as a data URI."""

    index: int
    name: str
    width: int
    height: int
    source: str


def choose_images(errors: Sequence[int], present: Sequence[bool], *, seed: int = 0) -> tuple[list[int], list[int]]:
    """Return the images with the most errors, most first, and random ones of the others.

    All images are returned if `MAX_IMAGES` permits; otherwise half of `MAX_IMAGES` images of each kind.

    Args:
        errors: number of errors in each image.
        present: whether the file of each image exists.
        seed: seed of the random choice.
    """
    left = [i for i, is_present in enumerate(present) if is_present]
    flawed = sorted((i for i in left if errors[i]), key=lambda i: (-errors[i], i))
    worst = flawed if len(left) <= MAX_IMAGES else flawed[: MAX_IMAGES // 2]
    rest = sorted({*left} - {*worst})
    order = np.random.default_rng(seed).permutation(len(rest))[: MAX_IMAGES - len(worst)]
    return worst, [rest[i] for i in order]


def embed(chosen: Sequence[int], images: Sequence[ImageOutcomes], limit: int) -> list[EmbeddedImage]:
    """Embed images in their order until their size would exceed `limit` bytes."""
    embedded: list[EmbeddedImage] = []
    used = 0
    for index in chosen:
        item = images[index].item
        image = decode_for_display(item.image)
        source = "data:image/jpeg;base64," + jpeg(image)
        used += len(source)
        if used > limit:
            break
        embedded.append(
            EmbeddedImage(index=index, name=item.name, width=image.width, height=image.height, source=source)
        )
    return embedded


def is_present(outcome: ImageOutcomes) -> bool:
    """Return whether the image can be shown: it is in memory, or its file exists."""
    image = outcome.item.image
    return not isinstance(image, Path) or image.is_file()


def image_data(embedded: EmbeddedImage, runs: Sequence[Outcomes], lowest: int, *, with_source: bool) -> dict[str, Any]:
    """Return an embedded image for the script: its objects, and the detections of each run from a threshold step.

    Objects are x1, y1, x2, y2, class, size, crowd. Detections are x1, y1, x2, y2, class, score (thousandths), size,
    kind of error (-1: none), object of its class that the detection matches (-1: none), object in the confusion
    matrix (-1: none), ignored.
    """
    first = runs[0].images[embedded.index]
    objects = zip(
        _rounded(first.item.boxes_G4), first.item.labels_G.tolist(), first.size_G.tolist(), first.crowd_G, strict=True
    )
    return {
        "name": embedded.name,
        "width": embedded.width,
        "height": embedded.height,
        "source": embedded.source if with_source else None,
        "objects": [[*box, label, size, int(crowd)] for box, label, size, crowd in objects],
        "runs": [
            {
                "kinds": run.images[embedded.index].kind_G.tolist(),
                "detections": _detections(run.images[embedded.index], lowest),
            }
            for run in runs
        ],
    }


def _detections(image: ImageOutcomes, lowest: int) -> list[list[float]]:
    order = np.argsort(-np.asarray(image.item.scores_D), kind="stable")
    order = order[image.score_D[order] >= lowest * 10][:MAX_BOXES]
    boxes = _rounded(image.item.detected_D4)
    columns = (
        image.item.detected_labels_D,
        image.score_D,
        image.size_D,
        image.kind_D,
        image.matched_D,
        image.partner_D,
        image.ignored_D,
    )
    return [[*boxes[d], *(int(column[d]) for column in columns)] for d in order.tolist()]


def _rounded(boxes_G4: npt.NDArray[np.floating]) -> list[list[float]]:
    return np.round(np.asarray(boxes_G4, dtype=np.float64).reshape(-1, 4), 1).tolist()  # type: ignore[no-any-return]


def static_boxes(image: ImageOutcomes, step: int, classes: Sequence[str]) -> dict[str, Any]:
    """Return the boxes of an image at a threshold step as paths by outcome, the names of errors, and the counts."""
    shown_D = image.score_D >= step * 10
    missed_G = (image.found_G < step * 10) & ~image.crowd_G
    groups = {
        "found": shown_D & (image.matched_D >= 0),
        "unlabelled": shown_D & (image.kind_D == UNLABELLED),
        "false": shown_D & (image.kind_D >= 0) & (image.kind_D != UNLABELLED),
    }
    detected = _rounded(image.item.detected_D4)
    boxes = {name: [detected[d] for d in np.flatnonzero(chosen_D)] for name, chosen_D in groups.items()}
    boxes["missed"] = [_rounded(image.item.boxes_G4)[g] for g in np.flatnonzero(missed_G)]
    labels = [
        (box, f"{mark} {classes[image.item.detected_labels_D[d]]} {image.score_D[d] // 10 / 100:.2f}")
        for name, mark in (("false", "×"), ("unlabelled", "?"))
        for box, d in zip(boxes[name], np.flatnonzero(groups[name]), strict=True)
    ] + [
        (box, f"× {classes[image.item.labels_G[g]]}")
        for box, g in zip(boxes["missed"], np.flatnonzero(missed_G), strict=True)
    ]
    return {
        "paths": {name: "".join(_path(box) for box in chosen) for name, chosen in boxes.items() if chosen},
        "labels": [(box[0], box[1], text) for box, text in labels],
        "counts": {name: len(chosen) for name, chosen in boxes.items()},
    }


def _path(box: Sequence[float]) -> str:
    x1, y1, x2, y2 = box
    return f"M{x1:g} {y1:g}H{x2:g}V{y2:g}H{x1:g}Z"
