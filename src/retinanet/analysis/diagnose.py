"""Find systematic differences between a model's detections and the labels: wrong classes, wrong boxes, missing labels.

A model trained on correct labels detects objects correctly even if the labels that it is compared with are wrong. A
systematic difference therefore shows an error in these labels, or in the labels of the training data.
Boxes are xyxy in original pixels. Shape suffixes: D detections, G objects, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.anchor_findings import NO_PRIOR
from retinanet.analysis.finding import Finding
from retinanet.evaluate.per_image import items_from_results, overlaps

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.data import DetectionData

    Floats = npt.NDArray[np.float64]

SURE: Final = 0.5
"""Minimum score of the detections that are compared with the labels, unless the model's scores are all lower."""
ENOUGH: Final = 10
"""Minimum number of objects or detections for a conclusion."""
MOSTLY: Final = 0.6
"""Minimum share of a class's detections with another class for a finding about that class."""
OFFSET: Final = 0.08
"""Minimum median shift of the boxes, as a share of their sides, for a finding."""
STRETCH: Final = 1.15
"""Minimum median ratio of the boxes' sides for a finding."""
BETTER: Final = 2.0
"""A changed frame explains the boxes if it multiplies the number of matching boxes by at least this factor."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    name: str
    boxes_G4: Floats
    labels_G: npt.NDArray[np.int64]
    detected_D4: Floats
    detected_labels_D: npt.NDArray[np.int64]
    scores_D: Floats
    crowd_G: npt.NDArray[np.bool_]


def diagnose(
    data: DetectionData, results: Sequence[Mapping[str, Any]], *, train_config: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Return findings about systematic differences between detections and labels.

    A finding about the frame of the boxes stands alone, because offsets and classes cannot be judged in a wrong frame.

    Args:
        data: images with labels.
        results: COCO results of the model, with the image and category ids of `data`.
        train_config: options that the model was trained with, if known.
    """
    images = _images(data, results)
    scores = np.concatenate([np.empty(0), *(p.scores_D for p in images)])
    objects = sum(int((~p.crowd_G).sum()) for p in images)
    findings = list(_training(train_config or {}))
    if objects >= ENOUGH and (not len(scores) or scores.max() < 0.3):
        highest = f"the highest score is {scores.max():.2f}" if len(scores) else "the model detects nothing"
        return [
            *findings,
            Finding(
                kind="nothing found",
                severity="warning",
                what=f"the images have {objects} objects, but {highest}",
                cause="The model has learnt almost nothing, or the images differ too much from the training images",
                advice="Check the losses in the training run's report; train with a lower learning rate, with more "
                "epochs, or with --prior 0.01",
            ),
        ]
    sure = SURE if (scores >= SURE).sum() >= ENOUGH else float(np.quantile(scores, 0.9)) if len(scores) else SURE
    frame = list(_frames(images, sure))
    if frame:
        return [*findings, *frame]
    return [
        *findings,
        *_offsets(images, sure),
        *_classes(images, data.classes, sure),
        *_unlabelled(images, data.classes, sure),
    ]


def _images(data: DetectionData, results: Sequence[Mapping[str, Any]]) -> list[_Image]:
    return [
        _Image(
            name=item.name,
            boxes_G4=np.asarray(item.boxes_G4, dtype=np.float64),
            labels_G=np.asarray(item.labels_G, dtype=np.int64),
            detected_D4=np.asarray(item.detected_D4, dtype=np.float64),
            detected_labels_D=np.asarray(item.detected_labels_D, dtype=np.int64),
            scores_D=np.asarray(item.scores_D, dtype=np.float64),
            crowd_G=np.zeros(len(item.labels_G), bool) if item.crowd_G is None else np.asarray(item.crowd_G),
        )
        for item in items_from_results(data, results)
    ]


def _pairs(image: _Image, sure: float, least: float) -> Iterable[tuple[int, int]]:
    """Yield (detection, object) pairs of any class, by descending score. Each object is paired once.

    Args:
        image: detections and objects of an image.
        sure: minimum score of a detection.
        least: minimum IoU of a pair.
    """
    order = np.argsort(-image.scores_D, kind="stable")
    order = order[image.scores_D[order] >= sure]
    overlap_DG = overlaps(image.detected_D4[order], image.boxes_G4)[0]
    overlap_DG[:, image.crowd_G] = 0
    for place, d in enumerate(order):
        if not overlap_DG.shape[1]:
            return
        g = int(overlap_DG[place].argmax())
        if overlap_DG[place, g] >= least:
            overlap_DG[:, g] = 0
            yield int(d), g


def _training(config: Mapping[str, Any]) -> Iterable[Finding]:
    prior = config.get("prior", 0.01)
    if prior > NO_PRIOR:
        yield Finding(
            kind="no prior",
            severity="warning",
            what=f"the model was trained with the prior {prior:g}",
            cause="The loss of the background dominates the first steps of a training run with such a high prior",
            advice="Train with --prior 0.01, the default",
        )


def _frames(images: Sequence[_Image], sure: float) -> Iterable[Finding]:
    """Yield the change of the labels' coordinates that makes most boxes match detections, if it explains them."""

    def matches(change: Callable[[Floats], Floats]) -> int:
        total = 0
        for p in images:
            is_object = ~p.crowd_G
            overlap = overlaps(p.detected_D4[p.scores_D >= sure], change(p.boxes_G4[is_object]))[0]
            total += int((overlap >= 0.5).any(axis=0).sum()) if overlap.size else 0
        return total

    unchanged = matches(lambda boxes: boxes)
    objects = sum(int((~p.crowd_G).sum()) for p in images)
    frames: list[tuple[str, str, Callable[[Floats], Floats]]] = [
        (
            "corners taken for sizes",
            "the boxes match if their width and height are read as x and y of the second corner",
            lambda b: np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1),
        ),
        (
            "sizes taken for corners",
            "the boxes match if x and y of their second corner are read as width and height",
            lambda b: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1),
        ),
        ("x and y swapped", "the boxes match if x and y are swapped", lambda b: b[:, [1, 0, 3, 2]]),
    ]
    for factor in np.geomspace(0.2, 5, 47):
        if abs(np.log(factor)) > np.log(1.1):
            what = f"the boxes match if all coordinates are multiplied by {factor:.2f}"
            frames.append(("boxes of another size of image", what, lambda b, f=factor: b * f))  # type: ignore[misc]
    counts = [matches(change) for _, _, change in frames]
    best = int(np.argmax(counts))
    if counts[best] >= max(ENOUGH, BETTER * unchanged, 0.2 * objects):
        kind, what, _ = frames[best]
        yield Finding(
            kind=kind,
            severity="error",
            what=f"{what} ({counts[best]} objects match, {unchanged} match unchanged)",
            cause="The labels belong to resized images, or their coordinates are not in the order of the format",
            advice="Convert the boxes to the order of the format, in pixels of the original image",
        )


def _offsets(images: Sequence[_Image], sure: float) -> Iterable[Finding]:
    rows = []
    for p in images:
        for d, g in _pairs(p, sure, 0.2):
            label, box = p.boxes_G4[g], p.detected_D4[d]
            sides = label[2:] - label[:2]
            shift = (box[:2] + box[2:] - label[:2] - label[2:]) / 2 / sides
            rows.append([*shift, *np.log((box[2:] - box[:2]) / sides)])
    if len(rows) < ENOUGH:
        return
    median = np.median(np.array(rows), axis=0)
    if np.abs(median[:2]).max() > OFFSET:
        yield Finding(
            kind="boxes shifted",
            severity="warning",
            what=f"the labelled boxes are shifted from the detections by {-median[0]:+.0%} of their width to the right "
            f"and {-median[1]:+.0%} of their height down (median of {len(rows)})",
            cause="The labelling tool or a conversion added an offset, or the images were cropped without adapting the "
            "boxes",
            advice="Compare labels and detections in the report (--report), and shift the boxes",
        )
    elif np.abs(median[2:]).max() > np.log(STRETCH):
        width, height = np.exp(-median[2:])
        yield Finding(
            kind="boxes of another size",
            severity="warning",
            what=f"the labelled boxes are {width:.2f} times as wide and {height:.2f} times as high as the detections "
            f"(median of {len(rows)})",
            cause="The boxes of these labels are drawn tighter or wider than the boxes of the training labels",
            advice="Label training and evaluation data by the same rule",
        )


def _classes(images: Sequence[_Image], classes: Sequence[str], sure: float) -> Iterable[Finding]:
    """Yield findings about classes that are shifted, swapped, confused with another class, or never detected."""
    K = len(classes)
    found_KK, objects_K = np.zeros((K, K), dtype=np.int64), np.zeros(K, dtype=np.int64)
    for p in images:
        objects_K += np.bincount(p.labels_G[~p.crowd_G], minlength=K)
        for d, g in _pairs(p, sure, 0.5):
            found_KK[p.labels_G[g], p.detected_labels_D[d]] += 1
    seen_K = found_KK.sum(axis=1)
    confused = {}
    for k in np.flatnonzero(seen_K >= ENOUGH):
        other = int(found_KK[k].argmax())
        if other != k and found_KK[k, other] >= MOSTLY * seen_K[k]:
            confused[int(k)] = other
    shifts = {other - k for k, other in confused.items()}
    pairs = [
        f"{classes[k]} is detected as {classes[other]} ({found_KK[k, other]} of {seen_K[k]})"
        for k, other in confused.items()
    ]
    if len(confused) > 1 and len({shift % K for shift in shifts}) == 1 and K > 2:
        yield Finding(
            kind="labels shifted",
            severity="error",
            what=f"{len(confused)} classes are detected as the class {next(iter(shifts)) % K} later in the class list",
            cause="The class ids are shifted: the class list contains a background class, ids start at 1 instead of 0, "
            "or the class list has another order",
            advice="Compare the class list of the labels with the model's class list",
            where=tuple(pairs),
        )
    elif confused:
        swapped = [k for k, other in confused.items() if confused.get(other) == k]
        yield Finding(
            kind="classes swapped" if swapped else "class taken for another",
            severity="error" if swapped else "warning",
            what=f"{len(confused)} {'class is' if len(confused) == 1 else 'classes are'} mostly detected as another "
            "class",
            cause="The class lists of labels and model have different orders, or labels were mixed up"
            if swapped
            else "Labels are wrong, or the classes look alike",
            advice="Compare the class list of the labels with the model's class list, and see the confusion matrix in "
            "the report",
            where=tuple(pairs),
        )
    missed = [k for k in np.flatnonzero(objects_K >= ENOUGH).tolist() if seen_K[k] < 0.05 * objects_K[k]]
    if missed:
        yield Finding(
            kind="class never found",
            severity="warning",
            what=f"{len(missed)} {'class is' if len(missed) == 1 else 'classes are'} almost never detected",
            cause="The training data has too few objects of these classes, no anchor matches the objects, or the "
            "labels are wrong",
            advice="`retinanet check DATA` reports objects and anchor coverage of each class; --balance-classes gives "
            "rare classes more weight",
            where=tuple(f"{classes[k]}: {seen_K[k]} of {objects_K[k]}" for k in missed),
        )


def _unlabelled(images: Sequence[_Image], classes: Sequence[str], sure: float) -> Iterable[Finding]:
    """Yield findings about classes that the model often detects with a high score where no object is labelled."""
    extra: Counter[int] = Counter()
    where: dict[int, Counter[str]] = {}
    labelled: Counter[int] = Counter()
    for p in images:
        labelled.update(p.labels_G[~p.crowd_G].tolist())
        certain = p.scores_D >= max(sure, 0.6)
        overlap = overlaps(p.detected_D4[certain], p.boxes_G4)[0]
        alone = overlap.max(axis=1) < 0.3 if overlap.shape[1] else np.ones(len(overlap), bool)
        for label in p.detected_labels_D[certain][alone].tolist():
            extra[label] += 1
            where.setdefault(label, Counter())[p.name] += 1
    for label, count in extra.most_common():
        if count < ENOUGH or count < 0.1 * labelled[label]:
            continue
        without_labels = not labelled[label]
        yield Finding(
            kind="unlabelled class" if without_labels else "unlabelled objects",
            severity="warning",
            what=f"{count} detections of {classes[label]} have a high score where no object is labelled"
            + (
                "; the data has no object of this class"
                if without_labels
                else f"; the data has {labelled[label]} labelled objects of this class"
            ),
            cause="The objects of this class were not labelled"
            if without_labels
            else "Not all objects of this class were labelled, or other things look like such objects",
            advice="Find these places with `retinanet check MODEL DATA --hard`, and label the objects: training on "
            "unlabelled objects as background teaches the model to miss such objects",
            where=tuple(f"{name}: {n}" for name, n in where[label].most_common(20)),
        )
