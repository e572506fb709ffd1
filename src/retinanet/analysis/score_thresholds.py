"""Choose the score threshold for an aim, with a bound for new images where mathematics gives one.

The bounds hold for images that are drawn at random from where the images of the data come from.

Shape suffixes: D detections, I images, T thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self

import numpy as np
from scipy.special import betainc, expit, logit

from retinanet.errors import ConfigError, UserError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

AimKind = Literal["recall", "precision", "f1", "cost"]

GRID: Final = expit(np.linspace(logit(0.995), logit(0.01), 120))
"""Thresholds that are tested for a precision, from high to low. They must not depend on the data."""
STARTS: Final = tuple(int(np.abs(GRID - start).argmin()) for start in (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.3))
"""Places in `GRID` at which a sequence of tests for a precision starts, each with an equal part of the risk."""
MAX_FACTOR: Final = 1000
"""More than this many times the images of the data are not named as a need."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Aim of a threshold.

    Args:
        kind: recall and precision have a bound for new images; f1 and cost are optimal on the data.
        value: lowest recall or precision; for cost, the cost of a missed object divided by that of a false detection.
    """

    kind: AimKind
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the aim that a text names: recall=0.95, precision=0.9, f1 or cost=10:1.

        Raises:
            ConfigError: the text names no aim.
        """
        kind, _, value = text.strip().lower().partition("=")
        try:
            if kind == "f1" and not value:
                return cls(kind="f1")
            if kind in ("recall", "precision") and 0 < (number := float(value)) < 1:
                return cls(kind=kind, value=number)  # type: ignore[arg-type]
            if kind == "cost":
                missed, _, false = value.partition(":")
                ratio = float(missed) / float(false)
                if 0 < ratio < math.inf:
                    return cls(kind="cost", value=ratio)
        except (ValueError, ZeroDivisionError):
            pass
        raise ConfigError(
            f"aim must be recall=R or precision=P with a number between 0 and 1, f1, or cost=M:F with the costs of a "
            f"missed object and of a false detection, found {text!r}"
        )

    def __str__(self) -> str:
        return self.kind if self.kind == "f1" else f"{self.kind}={self.value:g}" + (":1" if self.kind == "cost" else "")


class UnsupportedAimError(UserError):
    """The data cannot support an aim. `images` is the number of images that would; None: no number of images would."""

    def __init__(self, message: str, images: int | None) -> None:
        super().__init__(message)
        self.images = images


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Detections with their outcomes, of one class or of several.

    Args:
        scores_D: scores.
        correct_D: whether a detection matches an object.
        image_D: index of the image.
        objects_I: number of objects of each image.
    """

    scores_D: Floats
    correct_D: Bools
    image_D: Ints
    objects_I: Ints


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A threshold, and what it gives on the data.

    Args:
        threshold: detections with a higher score are kept.
        recall: share of the objects that are found.
        precision: share of the kept detections that are right; 1 if none is kept.
    """

    threshold: float
    recall: float
    precision: float


def choose(outcomes: Outcomes, aim: Aim, *, confidence: float) -> Choice:
    """Return the threshold for an aim.

    - recall: conformal risk control (arXiv 2208.02814, theorem 1) of the loss "missed objects - (1 - recall) x objects"
      of an image, which is at most recall x the greatest number of objects of an image. The expected number of missed
      objects in a new image is at most (1 - recall) x the expected number of its objects. Of all thresholds that hold
      this, the highest is chosen.
    - precision: Learn then Test (arXiv 2110.01052) with Clopper-Pearson tests of fixed thresholds. The number of
      detections is reduced by the design effect of the images (Korn and Graubard, 1998), because outcomes in one
      image depend on each other. With probability `confidence`, precision on new images is at least as high. Of all
      thresholds that pass, the lowest is chosen.
    - f1, cost: the best threshold on the data, without a bound.

    Args:
        outcomes: detections of images that the network was not trained on.
        aim: the aim.
        confidence: probability with which a precision holds.

    Raises:
        UnsupportedAimError: the data cannot support the aim, or has no object.
    """
    if not outcomes.objects_I.sum():
        raise UnsupportedAimError("expected objects, found none", None)
    if aim.kind == "recall":
        threshold = _for_recall(outcomes, aim.value)
    elif aim.kind == "precision":
        threshold = _for_precision(outcomes, aim.value, 1 - confidence)
    else:
        threshold = _best(outcomes, aim)
    return measure(outcomes, threshold)


def measure(outcomes: Outcomes, threshold: float) -> Choice:
    """Return the recall and precision that a threshold gives on the data."""
    kept_D = outcomes.scores_D > threshold
    right, kept = int((kept_D & outcomes.correct_D).sum()), int(kept_D.sum())
    return Choice(
        threshold=threshold,
        recall=right / max(1, int(outcomes.objects_I.sum())),
        precision=right / kept if kept else 1.0,
    )


def _between(scores_D: Floats, score: float) -> float:
    """Return a threshold that keeps a score: halfway to the next lower score, so that rounding changes nothing."""
    lower_D = scores_D[scores_D < score]
    return float((score + (lower_D.max() if len(lower_D) else 0.0)) / 2)


def _for_recall(outcomes: Outcomes, recall: float) -> float:
    images, objects = len(outcomes.objects_I), int(outcomes.objects_I.sum())
    bound = recall * int(outcomes.objects_I.max())  # of the loss of an image whose objects are all missed
    right_D = np.sort(outcomes.scores_D[outcomes.correct_D])[::-1]
    missed = objects - len(right_D)
    allowed = math.floor((1 - recall) * objects - bound + 1e-9)
    if missed <= allowed:
        return _between(outcomes.scores_D, float(right_D[objects - allowed - 1]))
    reserve = (1 - recall) - missed / objects
    if reserve <= 0:
        raise UnsupportedAimError(
            f"the model finds {len(right_D):,} of {objects:,} objects at the lowest threshold, a recall of "
            f"{len(right_D) / objects:.3f}: no number of images supports recall {recall:g}. Give a lower recall, or "
            "train longer (`retinanet check MODEL DATA` names the causes of misses)",
            None,
        )
    needed = math.ceil(bound / (reserve * objects / images) - 1e-9)
    raise UnsupportedAimError(
        f"{images:,} images with {objects:,} objects are too few for recall {recall:g}, of which the model misses "
        f"{missed:,} at the lowest threshold: about {needed:,} images of this kind would suffice",
        needed,
    )


def p_value(false: Floats, count: Floats, precision: float) -> Floats:
    """Return the probability of at most `false` false detections among `count`, if the precision is at most this one.

    Clopper-Pearson: the binomial distribution function as a regularised incomplete beta function, which also takes
    effective numbers that are not whole.
    """
    return np.where(count > 0, betainc(np.maximum(count - false, 1e-12), false + 1, precision), 1.0)


def _effective(outcomes: Outcomes, threshold: float) -> tuple[float, float]:
    """Return the effective numbers of false detections and of detections above a threshold.

    The design effect is the variance of the share of false detections between images, divided by the variance of as
    many independent detections. Below 1 it counts as 1.
    """
    kept_D = outcomes.scores_D > threshold
    images = len(outcomes.objects_I)
    count_I = np.bincount(outcomes.image_D[kept_D], minlength=images)
    false_I = np.bincount(outcomes.image_D[kept_D & ~outcomes.correct_D], minlength=images)
    count, false = float(count_I.sum()), float(false_I.sum())
    if not 0 < false < count or images < 2:
        return false, count
    share = false / count
    between = ((false_I - share * count_I) ** 2).sum() / count**2 * images / (images - 1)
    effect = max(1.0, float(between) / (share * (1 - share) / count))
    return false / effect, count / effect


def _for_precision(outcomes: Outcomes, precision: float, risk: float) -> float:
    """Return the lowest threshold of `GRID` for which a sequence of tests passes.

    Each sequence starts at a fixed threshold with an equal part of the risk, goes to lower thresholds, and ends at the
    first test that fails. So the probability that any passed threshold is wrong is at most the risk.
    """
    false_T, count_T = np.array([_effective(outcomes, float(t)) for t in GRID]).T
    level = risk / len(STARTS)
    passes_T = p_value(false_T, count_T, precision) <= level
    best = -1
    for start in STARTS:
        length = int(np.argmin(passes_T[start:])) if not passes_T[start:].all() else len(GRID) - start
        best = max(best, start + length - 1) if length else best
    if best >= 0:
        return float(GRID[best])
    images = len(outcomes.objects_I)
    able = [start for start in STARTS if false_T[start] < (1 - precision) * count_T[start]]
    for factor in np.geomspace(1, MAX_FACTOR, 400):
        if (p_value(factor * false_T[able], factor * count_T[able], precision) <= level).any():
            needed = math.ceil(factor * images)
            raise UnsupportedAimError(
                f"{images:,} images are too few to show precision {precision:g} at any threshold: about {needed:,} "
                "images of this kind would suffice",
                needed,
            )
    shares_T = 1 - false_T[count_T > 0] / count_T[count_T > 0]
    raise UnsupportedAimError(
        f"the highest precision at any threshold is {shares_T.max(initial=0.0):.3f} on {images:,} images: no number of "
        f"images supports precision {precision:g}. Give a lower precision, or train longer",
        None,
    )


def _best(outcomes: Outcomes, aim: Aim) -> float:
    """Return the threshold with the highest F1 or the lowest cost on the data."""
    order = np.argsort(-outcomes.scores_D, kind="stable")
    scores_D, right_D = outcomes.scores_D[order], np.cumsum(outcomes.correct_D[order])
    kept_D = np.arange(1, len(order) + 1)
    objects = int(outcomes.objects_I.sum())
    # Thresholds lie between different scores.
    ends_D = np.flatnonzero(np.append(scores_D[1:] < scores_D[:-1], True)) if len(order) else np.array([], np.int64)
    gain_D: npt.NDArray[np.floating]
    if aim.kind == "f1":
        gain_D = 2 * right_D[ends_D] / (objects + kept_D[ends_D])
    else:
        gain_D = aim.value * right_D[ends_D] - (kept_D[ends_D] - right_D[ends_D])
    if not len(ends_D) or gain_D.max() <= 0:
        return 1.0  # no detection is worth keeping
    return _between(outcomes.scores_D, float(scores_D[ends_D[int(np.argmax(gain_D))]]))
