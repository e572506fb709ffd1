"""Sentences from numbers: what a run came to, whether more would help, and where it is weak.

Each sentence is computed from what it speaks of, and left out where that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from retinanet.evaluate.per_image import ImageResults, judge
from retinanet.report.gallery import count

RISE: Final = 0.01
"""An AP that grows by less than this has stopped growing."""
FEW: Final = 20
"""The AP of a class with fewer objects than this is largely chance."""

Row = Mapping[str, float | None]


def points(rows: Sequence[Row], x: str, y: str) -> tuple[list[float], list[float]]:
    """Return x and y of the rows that have both, finite. Epochs, counted from 0 in the file, are counted from 1."""
    found: dict[float, float] = {}
    for row in rows:
        a, b = row.get(x), row.get(y)
        if a is not None and b is not None and math.isfinite(b):
            found[a + 1 if x == "epoch" else a] = b
    return list(found), list(found.values())


def course(rows: Sequence[Row]) -> list[str]:
    """Return what the evaluations during training say: the best AP and when, and whether it was still rising."""
    epochs, aps = points(rows, "epoch", "AP")
    evaluated = [(int(e), ap) for e, ap in zip(epochs, aps, strict=True) if ap >= 0]
    if not evaluated:
        return ["No AP was measured during training."]
    best_epoch, best = max(evaluated, key=lambda pair: pair[1])
    ap50 = dict(zip(*points(rows, "epoch", "AP50"), strict=True)).get(best_epoch, -1)
    with_ap50 = f" (AP50 {ap50:.3f})" if ap50 >= 0 else ""
    last_epoch, last = evaluated[-1]
    trained = max([last_epoch, *(int(e) for e in points(rows, "epoch", "step")[0])])
    sentences = [
        f"The best AP on the validation images was {best:.3f}{with_ap50}, after epoch {best_epoch} of {trained}."
    ]
    if best == 0:
        return ["No object of the validation images was found in any evaluation (AP 0)."]
    recent = max(2, len(evaluated) // 4)
    if len(evaluated) <= recent:
        return sentences
    before = max(ap for _, ap in evaluated[:-recent])
    gain = max(ap for _, ap in evaluated[-recent:]) - before
    if best - last > 2 * RISE:
        sentence = f"AP fell to {last:.3f} by the last evaluation; best.ckpt holds the weights of epoch {best_epoch}"
        losses = _epoch_losses(rows)
        if losses.get(last_epoch, math.inf) < losses.get(best_epoch, -math.inf):
            sentence += ", and the training loss went on falling: the network has begun to learn the images by heart"
        sentences.append(sentence + ".")
    elif gain > RISE:
        sentences.append(
            f"AP was still rising: by {gain:.3f} in the last {recent} evaluations. More epochs may well help."
        )
    else:
        sentences.append(f"AP has levelled off: the last {recent} evaluations added {max(0.0, gain):.3f}.")
    return sentences


def _epoch_losses(rows: Sequence[Row]) -> dict[int, float]:
    """Return the mean loss of each epoch, counted from 1."""
    of_epoch: dict[int, list[float]] = {}
    for row in rows:
        epoch, loss = row.get("epoch"), row.get("loss")
        if epoch is not None and loss is not None:
            of_epoch.setdefault(int(epoch) + 1, []).append(loss)
    return {epoch: sum(losses) / len(losses) for epoch, losses in of_epoch.items()}


def overall(metrics: Mapping[str, Any], images: str) -> list[str]:
    """Return AP and AP50 of `Metrics.to_json()` as a sentence."""
    ap, ap50 = (_number(metrics, name) for name in ("AP", "AP50"))
    more = f", AP50 {ap50:.3f}" if ap50 is not None else ""
    return [f"On the {images}: AP {ap:.3f}{more}."] if ap is not None else []


def weaknesses(metrics: Mapping[str, Any]) -> list[str]:
    """Return what else `Metrics.to_json()` says: the weakest class, and where the gaps are."""
    ap50, ap75 = (_number(metrics, name) for name in ("AP50", "AP75"))
    sentences = []
    classes: Mapping[str, Mapping[str, Any]] = metrics.get("per_class") or {}
    scores = {name: _number(row, "AP") for name, row in classes.items()}
    known = {name: score for name, score in scores.items() if score is not None}
    if len(known) > 1:
        weakest, score = min(known.items(), key=lambda item: item[1])
        objects = classes[weakest].get("objects")
        has = f" ({count(int(objects), 'object')})" if objects is not None else ""
        few = objects is not None and objects < FEW
        note = ": so few that the number is largely chance" if few else ""
        sentences.append(f"The weakest class is {weakest} with AP {score:.3f}{has}{note}.")
    if absent := [name for name, row in classes.items() if row.get("objects") == 0]:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        sentences.append(f"No objects to measure by: {shown}.")
    if ap50 is not None and ap75 is not None and ap50 - ap75 > 0.25:
        sentences.append(
            f"Objects are found better than they are outlined: AP is {ap50:.3f} at IoU 0.50 and {ap75:.3f} at IoU 0.75."
        )
    names = {"APs": "small (below 32² pixels)", "APm": "medium", "APl": "large (above 96² pixels)"}
    sizes = {name: value for name in names if (value := _number(metrics, name)) is not None}
    if len(sizes) > 1:
        low, high = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
        if sizes[high] - sizes[low] > 0.15:
            sentences.append(
                f"By size, {names[low]} objects are weakest: AP {sizes[low]:.3f}, "
                f"against {sizes[high]:.3f} of {names[high]} ones."
            )
    return sentences


def _number(values: Mapping[str, Any], name: str) -> float | None:
    """Return a number, or None where it is missing, not finite or COCO's -1 for "no such objects"."""
    value = values.get(name)
    return float(value) if value is not None and math.isfinite(value) and value >= 0 else None


def images(items: Sequence[ImageResults], threshold: float) -> list[str]:
    """Return how many of ALL the images (not of a choice of them) are right, and how many are silent or noisy."""
    if not items:
        return []
    verdicts = [judge(item, threshold) for item in items]
    perfect = sum(not v.missed and not v.false for v in verdicts)
    silent = sum(v.objects > 0 and not v.shown_D.any() for v in verdicts)
    empty = sum(v.objects == 0 for v in verdicts)
    noisy = sum(v.objects == 0 and v.false > 0 for v in verdicts)
    sentences = [
        f"With detections of a score of {threshold:.2f} or more, {perfect} of {count(len(items), 'image')} "
        f"{'has' if perfect == 1 else 'have'} every object found and nothing wrong; in all, "
        f"{sum(v.missed for v in verdicts)} of {count(sum(v.objects for v in verdicts), 'object')} are missed "
        f"and {count(sum(v.false for v in verdicts), 'detection')} wrong."
    ]
    if silent:
        sentences.append(f"On {count(silent, 'image')} with objects nothing was found.")
    if empty:
        sentences.append(f"Of {count(empty, 'image')} without objects {noisy or 'none'} got a detection all the same.")
    return sentences


def duration(seconds: float) -> str:
    """Return "42 s", "4 min 2 s" or "1 h 23 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
