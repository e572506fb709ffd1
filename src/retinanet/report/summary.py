"""Turn metrics into sentences: the course of AP during training, weak classes and sizes, counts of missed objects.

A sentence is left out if the numbers that it needs are missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from retinanet.analysis.ap_course import ap_course
from retinanet.analysis.overfitting import epoch_means, find_overfitting
from retinanet.evaluate.per_image import CONFIDENT, ImageResults, match_detections
from retinanet.report.gallery import pluralise

FEW_OBJECTS: Final = 20
"""The AP of a class with fewer objects than this is not reliable."""

Row = Mapping[str, float | None]


def points(rows: Sequence[Row], x: str, y: str) -> tuple[list[float], list[float]]:
    """Return the values of columns `x` and `y` from rows with finite values in both.

    Epochs start at 0 in the file and at 1 in the result.
    """
    values: dict[float, float] = {}
    for row in rows:
        a, b = row.get(x), row.get(y)
        if a is not None and b is not None and math.isfinite(b):
            values[a + 1 if x == "epoch" else a] = b
    return list(values), list(values.values())


def training_progress(rows: Sequence[Row]) -> list[str]:
    """Return sentences on the evaluations during training: the best AP, its epoch, and whether AP was still rising."""
    course = ap_course(rows)
    if course is None:
        return ["No AP was measured during training."]
    if course.best == 0:
        return ["AP was 0 in every evaluation: the model detected no object of the validation images."]
    ap50 = dict(zip(*points(rows, "epoch", "AP50"), strict=True)).get(course.best_epoch, -1)
    with_ap50 = f" (AP50 {ap50:.3f})" if ap50 >= 0 else ""
    trained = max([course.last_epoch, *(int(e) for e in points(rows, "epoch", "step")[0])])
    sentences = [
        f"The best AP on the validation images was {course.best:.3f}{with_ap50}, after epoch {course.best_epoch} of "
        f"{trained}."
    ]
    if course.gain is None:
        return sentences
    if course.has_fallen:
        sentence = (
            f"AP fell to {course.last:.3f} in the last evaluation. best.ckpt holds the weights of epoch "
            f"{course.best_epoch}"
        )
        losses = epoch_means(rows, "loss")
        is_old = not epoch_means(rows, "val_loss")  # the report of a newer run judges overfitting by this loss
        if is_old and losses.get(course.last_epoch - 1, math.inf) < losses.get(course.best_epoch - 1, -math.inf):
            sentence += ". The training loss kept falling, which is a sign of overfitting"
        sentences.append(sentence + ".")
    elif course.is_rising:
        sentences.append(
            f"AP was still rising, by {course.gain:.3f} in the last {course.recent} evaluations. More epochs may "
            "improve AP."
        )
    else:
        gain = max(0.0, course.gain)
        sentences.append(f"AP has stopped rising: the last {course.recent} evaluations improved it by {gain:.3f}.")
    return sentences


def overfitting(rows: Sequence[Row]) -> list[str]:
    """Return a sentence on overfitting if the losses of training and validation show it."""
    found = find_overfitting(rows)
    return [found.sentence()] if found is not None else []


def overall_metrics(metrics: Mapping[str, Any], images: str) -> list[str]:
    """Return a sentence with AP and AP50.

    Args:
        metrics: COCO metrics, as returned by `Metrics.to_json()`.
        images: name of the evaluated images, such as "validation images".
    """
    ap, ap50 = (_number(metrics, name) for name in ("AP", "AP50"))
    more = f", AP50 {ap50:.3f}" if ap50 is not None else ""
    return [f"On the {images}: AP {ap:.3f}{more}."] if ap is not None else []


def weaknesses(metrics: Mapping[str, Any]) -> list[str]:
    """Return sentences on weak points in `Metrics.to_json()`: class with the lowest AP, loose boxes, object sizes."""
    ap50, ap75 = (_number(metrics, name) for name in ("AP50", "AP75"))
    sentences = []
    classes: Mapping[str, Mapping[str, Any]] = metrics.get("per_class") or {}
    scores = {name: _number(row, "AP") for name, row in classes.items()}
    measured = {name: score for name, score in scores.items() if score is not None}
    if len(measured) > 1:
        weakest, score = min(measured.items(), key=lambda item: item[1])
        objects = classes[weakest].get("objects")
        of_objects = f" ({pluralise(int(objects), 'object')})" if objects is not None else ""
        few = objects is not None and objects < FEW_OBJECTS
        note = ". This AP is unreliable, because the class has too few objects" if few else ""
        sentences.append(f"The class with the lowest AP is {weakest}: AP {score:.3f}{of_objects}{note}.")
    if absent := [name for name, row in classes.items() if row.get("objects") == 0]:
        names = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        sentences.append(f"These classes have no objects, so they have no AP: {names}.")
    if ap50 is not None and ap75 is not None and ap50 - ap75 > 0.25:
        sentences.append(f"Many boxes are inaccurate: AP is {ap50:.3f} at IoU 0.50 and {ap75:.3f} at IoU 0.75.")
    size_names = {
        "APs": "small objects (below 32² pixels)",
        "APm": "medium objects",
        "APl": "large objects (above 96² pixels)",
    }
    sizes = {name: value for name in size_names if (value := _number(metrics, name)) is not None}
    if len(sizes) > 1:
        low, high = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
        if sizes[high] - sizes[low] > 0.15:
            sentences.append(
                f"By object size, AP is lowest for {size_names[low]}: {sizes[low]:.3f}. AP is highest for "
                f"{size_names[high]}: {sizes[high]:.3f}."
            )
    return sentences


def _number(values: Mapping[str, Any], name: str) -> float | None:
    """Return a metric, or None if it is missing, not finite, or -1 (COCO's value for metrics without objects)."""
    value = values.get(name)
    return float(value) if value is not None and math.isfinite(value) and value >= 0 else None


def image_counts(items: Sequence[ImageResults], threshold: float) -> list[str]:
    """Return sentences with counts over all images: images without errors, missed objects, false detections."""
    if not items:
        return []
    verdicts = [match_detections(item, threshold) for item in items]
    perfect = sum(not v.missed and not v.false for v in verdicts)
    undetected = sum(v.objects > 0 and not v.shown_D.any() for v in verdicts)
    empty = sum(v.objects == 0 for v in verdicts)
    noisy = sum(v.objects == 0 and v.false + v.unlabelled > 0 for v in verdicts)
    missed, false, unlabelled = (sum(getattr(v, name) for v in verdicts) for name in ("missed", "false", "unlabelled"))
    sentences = [
        f"At score threshold {threshold:.2f}, {perfect} of {pluralise(len(items), 'image')} "
        f"{'has' if perfect == 1 else 'have'} no missed object and no false detection. In total, "
        f"{missed} of {pluralise(sum(v.objects for v in verdicts), 'object')} "
        f"{'is' if missed == 1 else 'are'} missed and {pluralise(false, 'detection')} "
        f"{'is' if false == 1 else 'are'} false."
    ]
    if unlabelled:
        sentences.append(
            f"{pluralise(unlabelled, 'detection')} with a score of {CONFIDENT:g} or more "
            f"{'lies' if unlabelled == 1 else 'lie'} where no object is labelled: probably unlabelled objects. These "
            "detections do not count as false."
        )
    if undetected:
        sentences.append(
            f"{pluralise(undetected, 'image')} with objects {'has' if undetected == 1 else 'have'} no detection."
        )
    if empty:
        verb = "has" if noisy == 1 else "have"
        sentences.append(f"{noisy} of {pluralise(empty, 'image')} without objects {verb} a detection.")
    return sentences


def duration(seconds: float) -> str:
    """Return "42 s", "4 min 2 s" or "1 h 23 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
