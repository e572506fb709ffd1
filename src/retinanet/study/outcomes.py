"""Hold the set-ups of a study and the results of their training runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from retinanet.study.statistics import confidence_interval

EARLY_STEP: Final = 100
"""Number of steps after which the training loss shows whether the start was stable."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One set-up of a study.

    Args:
        name: name of the folder of the runs, without the seed.
        label: name in tables and sentences.
        options: options that differ from the study's options.
    """

    name: str
    label: str
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run of a study.

    Args:
        seed: random seed of the run.
        seconds: duration of the run.
        metrics: `Metrics.to_json()` after the last step; empty if the run diverged.
        diverged: error message of a run whose loss became NaN or infinite; "" for other runs.
        early_loss: last logged training loss up to step `EARLY_STEP`; None if no loss was logged by then.
        folder: run folder.
        train_metrics: `Metrics.to_json()` on images that the run was trained on; empty unless measured.
    """

    seed: int
    seconds: float
    metrics: dict[str, Any] = field(repr=False)
    diverged: str
    early_loss: float | None
    folder: Path
    train_metrics: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ap(self) -> float:
        """AP; 0 for a run that diverged."""
        return float(self.metrics.get("AP", 0.0))

    def class_ap(self, name: str) -> float | None:
        """Return the AP of a class; 0 for a run that diverged, None if the validation data has no such object."""
        ap = self.metrics.get("per_class", {}).get(name, {}).get("AP", -1.0)
        if self.diverged:
            return 0.0
        return float(ap) if ap >= 0 else None

    def detections(self) -> list[dict[str, Any]]:
        """Return the detections on the validation data as COCO results; none for a run that diverged."""
        path = self.folder / "detections.json"
        return [] if self.diverged or not path.exists() else list(json.loads(path.read_text()))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All runs of one set-up."""

    variant: Variant
    runs: tuple[Run, ...]

    def mean(self, name: str = "AP") -> float:
        """Return the mean of a COCO metric over the seeds."""
        return float(np.mean([run.metrics.get(name, 0.0) for run in self.runs]))

    def interval(self, name: str = "AP") -> tuple[float, float]:
        """Return the 95 % confidence interval of the mean (Student's t); (-inf, inf) for a single run."""
        values = [float(run.metrics.get(name, 0.0)) for run in self.runs]
        return confidence_interval(values)

    @property
    def diverged(self) -> int:
        """Number of runs whose loss became NaN or infinite."""
        return sum(bool(run.diverged) for run in self.runs)

    @property
    def early_loss(self) -> float | None:
        """Mean training loss after `EARLY_STEP` steps; None if no run logged one."""
        values = [run.early_loss for run in self.runs if run.early_loss is not None]
        return float(np.mean(values)) if values else None
