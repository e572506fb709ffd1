"""What a model's detections say about the labels: shifted classes, shifted or scaled boxes, objects nobody labelled.

A model that was trained on sound labels finds objects whatever is wrong with the labels that it is now compared with,
so that what differs systematically is the labels' doing (or the other way round, where the training labels were off).
Boxes are xyxy in original pixels. Shape suffixes: D detections, G objects, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.finding import Finding
from retinanet.evaluate.per_image import items_from_results, overlaps

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.data import DetectionData

    Floats = npt.NDArray[np.float64]

SURE: Final = 0.5
"""Score from which a detection is taken for what it says, unless the model never is so sure."""
ENOUGH: Final = 10
"""Fewer objects than this say nothing about a class."""
MOSTLY: Final = 0.6
OFFSET: Final = 0.08
"""Shift of the boxes, as a share of their sides, that is no longer chance."""
STRETCH: Final = 1.15
BETTER: Final = 2.0
"""A changed frame explains the boxes where it makes so many times more of them match."""
NO_PRIOR: Final = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    name: str
    boxes_G4: Floats
    labels_G: npt.NDArray[np.int64]
    found_D4: Floats
    found_labels_D: npt.NDArray[np.int64]
    scores_D: Floats
    crowd_G: npt.NDArray[np.bool_]


def diagnose(
    data: DetectionData, results: Sequence[Mapping[str, Any]], *, train_config: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Return what is systematically wrong between detections and labels, the most telling first.

    Args:
        data: the labels.
        results: COCO results of a model, by the data's ids.
        train_config: the options that the model was trained with, where known.
    """
    images = _images(data, results)
    scores = np.concatenate([np.empty(0), *(p.scores_D for p in images)])
    objects = sum(int((~p.crowd_G).sum()) for p in images)
    found = list(_training(train_config or {}))
    if objects >= ENOUGH and (not len(scores) or scores.max() < 0.3):
        highest = f"the highest score is {scores.max():.2f}" if len(scores) else "there is not one detection"
        return [
            *found,
            Finding(
                kind="nothing found",
                severity="warning",
                what=f"{objects} objects, and {highest}",
                cause="The model has learnt next to nothing, or the images are not like those that it was trained on",
                advice="See the losses of its training; a lower learning rate, more epochs, --prior 0.01",
            ),
        ]
    sure = SURE if (scores >= SURE).sum() >= ENOUGH else float(np.quantile(scores, 0.9)) if len(scores) else SURE
    frame = list(_frames(images, sure))
    if frame:
        return [*found, *frame]  # nothing else can be judged in the wrong frame
    return [
        *found,
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
            found_D4=np.asarray(item.found_D4, dtype=np.float64),
            found_labels_D=np.asarray(item.found_labels_D, dtype=np.int64),
            scores_D=np.asarray(item.scores_D, dtype=np.float64),
            crowd_G=np.zeros(len(item.labels_G), bool) if item.crowd_G is None else np.asarray(item.crowd_G),
        )
        for item in items_from_results(data, results)
    ]


def _pairs(image: _Image, sure: float, least: float) -> Iterable[tuple[int, int]]:
    """Yield (detection, object) pairs of any class: the best score first, each object once, IoU of `least` or more."""
    order = np.argsort(-image.scores_D, kind="stable")
    order = order[image.scores_D[order] >= sure]
    overlap_DG = overlaps(image.found_D4[order], image.boxes_G4)[0]
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
            cause="At the start every anchor was as likely an object as not, and the background drowned the objects",
            advice="Train with --prior 0.01, the default",
        )


def _frames(images: Sequence[_Image], sure: float) -> Iterable[Finding]:
    """Yield the frame in which the labels would match, where it is not the one that they claim."""

    def matches(change: Callable[[Floats], Floats]) -> int:
        total = 0
        for p in images:
            sound = ~p.crowd_G
            overlap = overlaps(p.found_D4[p.scores_D >= sure], change(p.boxes_G4[sound]))[0]
            total += int((overlap >= 0.5).any(axis=0).sum()) if overlap.size else 0
        return total

    as_it_is = matches(lambda boxes: boxes)
    objects = sum(int((~p.crowd_G).sum()) for p in images)
    frames: list[tuple[str, str, Callable[[Floats], Floats]]] = [
        (
            "corners taken for sizes",
            "the boxes match where their width and height are read as the right and bottom corner",
            lambda b: np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], axis=1),
        ),
        (
            "sizes taken for corners",
            "the boxes match where their right and bottom corner are read as width and height",
            lambda b: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1),
        ),
        ("x and y swapped", "the boxes match where x and y are swapped", lambda b: b[:, [1, 0, 3, 2]]),
    ]
    for factor in np.geomspace(0.2, 5, 47):
        if abs(np.log(factor)) > np.log(1.1):
            said = f"the boxes match where all are multiplied by {factor:.2f}"
            frames.append(("boxes of another size of image", said, lambda b, f=factor: b * f))  # type: ignore[misc]
    counts = [matches(change) for _, _, change in frames]
    best = int(np.argmax(counts))
    if counts[best] >= max(ENOUGH, BETTER * as_it_is, 0.2 * objects):
        kind, what, _ = frames[best]
        yield Finding(
            kind=kind,
            severity="error",
            what=f"{what} ({counts[best]} objects instead of {as_it_is})",
            cause="The labels were written for resized images, or in another order than this format has",
            advice="Convert the boxes to the format's order, in pixels of the image as it is",
        )


def _offsets(images: Sequence[_Image], sure: float) -> Iterable[Finding]:
    rows = []
    for p in images:
        for d, g in _pairs(p, sure, 0.2):
            label, box = p.boxes_G4[g], p.found_D4[d]
            sides = label[2:] - label[:2]
            shift = (box[:2] + box[2:] - label[:2] - label[2:]) / 2 / sides
            rows.append([*shift, *np.log((box[2:] - box[:2]) / sides)])
    if len(rows) < ENOUGH:
        return
    middle = np.median(np.array(rows), axis=0)
    if np.abs(middle[:2]).max() > OFFSET:
        yield Finding(
            kind="boxes shifted",
            severity="warning",
            what=f"the labelled boxes lie {-middle[0]:+.0%} of their width to the right and {-middle[1]:+.0%} of their "
            f"height down of where the objects are found (median of {len(rows)})",
            cause="An offset in the labelling tool or the conversion, or cropped images with boxes of the whole ones",
            advice="Look at some images in the report, and move the boxes",
        )
    elif np.abs(middle[2:]).max() > np.log(STRETCH):
        width, height = np.exp(-middle[2:])
        yield Finding(
            kind="boxes of another size",
            severity="warning",
            what=f"the labelled boxes are {width:.2f} times as wide and {height:.2f} times as high as what is found "
            f"there (median of {len(rows)})",
            cause="These labels are drawn tighter or wider than those that the model was trained on",
            advice="Use one rule for both",
        )


def _classes(images: Sequence[_Image], classes: Sequence[str], sure: float) -> Iterable[Finding]:
    """Yield classes that are shifted, swapped, taken for another or never found."""
    K = len(classes)
    found_KK, objects_K = np.zeros((K, K), dtype=np.int64), np.zeros(K, dtype=np.int64)
    for p in images:
        objects_K += np.bincount(p.labels_G[~p.crowd_G], minlength=K)
        for d, g in _pairs(p, sure, 0.5):
            found_KK[p.labels_G[g], p.found_labels_D[d]] += 1
    seen_K = found_KK.sum(axis=1)
    taken = {}
    for k in np.flatnonzero(seen_K >= ENOUGH):
        other = int(found_KK[k].argmax())
        if other != k and found_KK[k, other] >= MOSTLY * seen_K[k]:
            taken[int(k)] = other
    shifts = {other - k for k, other in taken.items()}
    pairs = [
        f"{classes[k]} is found as {classes[other]} ({found_KK[k, other]} of {seen_K[k]})" for k, other in taken.items()
    ]
    if len(taken) > 1 and len({shift % K for shift in shifts}) == 1 and K > 2:
        yield Finding(
            kind="labels shifted",
            severity="error",
            what=f"every class with enough objects is found as the one {next(iter(shifts)) % K} further on",
            cause="Class ids are off by one: a background class in the list, ids from 1 taken for ids from 0, or a "
            "list in another order",
            advice="Compare the class list of the labels with the model's",
            where=tuple(pairs),
        )
    elif taken:
        swapped = [k for k, other in taken.items() if taken.get(other) == k]
        yield Finding(
            kind="classes swapped" if swapped else "class taken for another",
            severity="error" if swapped else "warning",
            what=f"{len(taken)} {'class is' if len(taken) == 1 else 'classes are'} mostly found as another",
            cause="The class list is in another order than the model's, or labels were mixed up"
            if swapped
            else "Wrong labels, or classes that look alike",
            advice="Compare the class list of the labels with the model's; see the confusion matrix",
            where=tuple(pairs),
        )
    missed = [k for k in np.flatnonzero(objects_K >= ENOUGH).tolist() if seen_K[k] < 0.05 * objects_K[k]]
    if missed:
        yield Finding(
            kind="class never found",
            severity="warning",
            what=f"{len(missed)} {'class is' if len(missed) == 1 else 'classes are'} hardly ever found",
            cause="Too few of them in training, anchors that do not reach them, or labels where nothing is",
            advice="`retinanet check DATA` shows reach and counts; --balance-classes gives rare classes more weight",
            where=tuple(f"{classes[k]}: {seen_K[k]} of {objects_K[k]}" for k in missed),
        )


def _unlabelled(images: Sequence[_Image], classes: Sequence[str], sure: float) -> Iterable[Finding]:
    """Yield classes that are often found, with a high score, where nothing at all is labelled."""
    extra: Counter[int] = Counter()
    where: dict[int, Counter[str]] = {}
    labelled: Counter[int] = Counter()
    for p in images:
        labelled.update(p.labels_G[~p.crowd_G].tolist())
        certain = p.scores_D >= max(sure, 0.6)
        overlap = overlaps(p.found_D4[certain], p.boxes_G4)[0]
        lonely = overlap.max(axis=1) < 0.3 if overlap.shape[1] else np.ones(len(overlap), bool)
        for label in p.found_labels_D[certain][lonely].tolist():
            extra[label] += 1
            where.setdefault(label, Counter())[p.name] += 1
    for label, count in extra.most_common():
        if count < ENOUGH or count < 0.1 * labelled[label]:
            continue
        none = not labelled[label]
        yield Finding(
            kind="unlabelled class" if none else "unlabelled objects",
            severity="warning",
            what=f"{count} times {classes[label]} is found with a high score where nothing is labelled"
            + ("; the data has not one object of it" if none else f", beside {labelled[label]} labelled ones"),
            cause="Nobody labelled this class here"
            if none
            else "Not all of them were labelled, or something looks just like them",
            advice="`retinanet check MODEL DATA --hard` shows them; label them: as background they teach the model "
            "to miss such objects",
            where=tuple(f"{name}: {n}" for name, n in where[label].most_common(20)),
        )
