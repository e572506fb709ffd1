"""The result of `retinanet tune` in numbers and words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from retinanet.analysis.calibration import ClassCalibration
    from retinanet.analysis.score_thresholds import Choice
    from retinanet.analysis.scored_detections import Reliability
    from retinanet.checkpoint.tuned_thresholds import TunedThresholds
    from retinanet.evaluate import Metrics


@dataclass(frozen=True, kw_only=True, eq=False)
class TuningResult:
    """A tuned model, and the measurements behind it.

    Args:
        classes: names of the classes.
        tuned: chosen thresholds.
        calibrations: calibration of each class; empty without calibration.
        overall: recall and precision of all classes on the data at the chosen thresholds.
        by_class: recall and precision of each class; None for a class without objects.
        reliability: reliability of the model's detections before calibration, and with calibrations that were fitted on
            other images; None without calibration.
        metrics: COCO metrics before and after.
        notes: remarks about the data.
    """

    classes: tuple[str, ...]
    tuned: TunedThresholds
    calibrations: tuple[ClassCalibration, ...]
    overall: Choice
    by_class: tuple[Choice | None, ...]
    reliability: tuple[Reliability, Reliability] | None
    metrics: tuple[Metrics, Metrics]
    notes: tuple[str, ...] = ()

    def sentences(self) -> list[str]:
        """Return the promise, what the thresholds give on the data, and the effect of calibration."""
        before, after = self.metrics
        out = [
            self.tuned.sentence,
            f"On these images, the thresholds give recall {self.overall.recall:.3f} and precision "
            f"{self.overall.precision:.3f} (IoU 0.5).",
        ]
        if self.reliability is not None:
            first, second = (one.error for one in self.reliability)
            count = sum(calibration.is_calibrated for calibration in self.calibrations)
            out.append(
                f"Calibration changes the scores of {count} of {len(self.classes)} classes. The calibration error is "
                f"{first:.3f} before and {second:.3f} after, on images that the calibration was not fitted on. "
                f"AP is {before.AP:.3f} before and {after.AP:.3f} after."
            )
        return [*out, *self.notes]

    def rows(self) -> list[list[str]]:
        """Return the table of classes as text; `COLUMN_TITLES` has the column titles."""
        rows = []
        for k, (name, threshold) in enumerate(zip(self.classes, self.tuned.thresholds, strict=True)):
            choice = self.by_class[k]
            method, losses = "no", ("–", "–", "–")
            if self.calibrations:
                method = "Platt" if self.calibrations[k].is_calibrated else "no"
                found = self.calibrations[k].log_loss
                losses = tuple(f"{found[m]:.3f}" if m in found else "–" for m in ("none", "platt", "isotonic"))  # type: ignore[assignment]
            numbers = ("–", "–") if choice is None else (f"{choice.recall:.3f}", f"{choice.precision:.3f}")
            rows.append([name, f"{threshold:.3f}", *numbers, method, *losses])
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain values for JSON."""
        return {
            "tuned": self.tuned.to_dict(),
            "recall": self.overall.recall,
            "precision": self.overall.precision,
            "calibration_error": None
            if self.reliability is None
            else {when: one.error for when, one in zip(("before", "after"), self.reliability, strict=True)},
            "AP": {"before": self.metrics[0].AP, "after": self.metrics[1].AP},
            "per_class": {
                name: {
                    "threshold": self.tuned.thresholds[k],
                    "recall": None if (choice := self.by_class[k]) is None else choice.recall,
                    "precision": None if choice is None else choice.precision,
                    **(dataclasses.asdict(self.calibrations[k]) if self.calibrations else {}),
                }
                for k, name in enumerate(self.classes)
            },
            "sentences": self.sentences(),
        }


COLUMN_TITLES: Final = (
    *("Class", "Threshold", "Recall", "Precision", "Calibrated"),
    *("Log loss", "with Platt", "with isotonic"),
)
"""Column titles of the table of classes."""
