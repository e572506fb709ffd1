"""The score thresholds that `retinanet tune` chose for a model. This module does not import torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedThresholds:
    """Score thresholds of the classes of a model, and what they were chosen for.

    Args:
        thresholds: for each class, detections with a higher score are kept.
        aim: what the thresholds were chosen for, such as "recall=0.95".
        per_class: whether each class has the aim for itself. Otherwise the aim concerns the objects of all classes.
        confidence: probability with which an aim for precision holds on new images.
        images: number of images on which the thresholds were chosen.
        sentence: the promise, or its absence, in words.
    """

    thresholds: tuple[float, ...]
    aim: str
    per_class: bool
    confidence: float
    images: int
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {**dataclasses.asdict(self), "thresholds": list(self.thresholds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, classes: int) -> Self:
        """Return the record that `to_dict` returned.

        Args:
            values: plain values.
            classes: number of classes of the model.

        Raises:
            ValueError, TypeError, KeyError: a value is missing or invalid.
        """
        thresholds = tuple(float(value) for value in values["thresholds"])
        if len(thresholds) != classes or not all(math.isfinite(value) and 0 <= value <= 1 for value in thresholds):
            raise ValueError(f"expected {classes} tuned thresholds between 0 and 1, found {list(thresholds)}")
        return cls(
            thresholds=thresholds,
            aim=str(values["aim"]),
            per_class=bool(values["per_class"]),
            confidence=float(values["confidence"]),
            images=int(values["images"]),
            sentence=str(values["sentence"]),
        )
