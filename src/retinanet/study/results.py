"""What a study measured, and which differences the data supports."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from retinanet.config import StudyConfig, to_dict
from retinanet.formats.records import DetectionData
from retinanet.study.statistics import confidence_interval

EARLY_STEP: Final = 100
"""The loss after so many steps tells whether the start was stable."""
PAPER: Final = (
    ("cross-entropy, prior 0.01", "ResNet-50, 600 px", 30.2),
    ("cross-entropy, no prior", "ResNet-50, 600 px", None),
    ("alpha-balanced cross-entropy, alpha 0.75", "ResNet-50, 600 px", 31.1),
    ("focal, gamma 0.5, alpha 0.5", "ResNet-50, 600 px", 32.9),
    ("focal, gamma 1, alpha 0.25", "ResNet-50, 600 px", 33.7),
    ("focal, gamma 2, alpha 0.25", "ResNet-50, 600 px", 34.0),
    ("focal, gamma 5, alpha 0.25", "ResNet-50, 600 px", 32.2),
    ("OHEM, best setting", "ResNet-101, 600 px", 32.8),
    ("focal, gamma 2, alpha 0.25", "ResNet-101, 600 px", 36.0),
)
"""COCO AP in percent from arXiv 1708.02002, tables 1a, 1b and 1d, section 4.1; None: the training diverged."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One set-up of a study: `options` are what it changes of the common ones. `name` is its folder's."""

    name: str
    label: str
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a study.

    Args:
        seed: of the run.
        seconds: it took.
        metrics: `Metrics.to_json()` after the last step; empty where it diverged.
        diverged: what was said when the loss became NaN or infinite; empty where it did not.
        early_loss: training loss after `EARLY_STEP` steps (or after the last, of fewer), None where it never got there.
        folder: of the run.
    """

    seed: int
    seconds: float
    metrics: dict[str, Any] = field(repr=False)
    diverged: str
    early_loss: float | None
    folder: Path

    @property
    def ap(self) -> float:
        """AP; 0 for a run that diverged, since it gave no detector."""
        return float(self.metrics.get("AP", 0.0))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All runs of a set-up."""

    variant: Variant
    runs: tuple[Run, ...]

    def mean(self, name: str = "AP") -> float:
        """Return the mean of a COCO number over the seeds."""
        return float(np.mean([run_study.metrics.get(name, 0.0) for run_study in self.runs]))

    def interval(self, name: str = "AP") -> tuple[float, float]:
        """Return the 95 % confidence interval of the mean (Student's t); (-inf, inf) from a single run."""
        values = [float(run_study.metrics.get(name, 0.0)) for run_study in self.runs]
        return confidence_interval(values)

    @property
    def diverged(self) -> int:
        """Runs that ended in NaN or infinity."""
        return sum(bool(run_study.diverged) for run_study in self.runs)

    @property
    def early_loss(self) -> float | None:
        """Mean training loss after `EARLY_STEP` steps."""
        values = [run_study.early_loss for run_study in self.runs if run_study.early_loss is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study found. The first outcome is the one that the others are compared with."""

    config: StudyConfig
    outcomes: tuple[Outcome, ...]
    train: str
    val: str
    val_data: DetectionData = field(repr=False)

    def sentences(self) -> list[str]:
        """Return what the numbers support, and what they do not, in words."""
        reference = self.outcomes[0]
        ranked = sorted(self.outcomes, key=lambda outcome: -outcome.mean())
        best = ranked[0]
        said = [
            f"Highest AP: {best.variant.label}, {best.mean():.3f} (95 % interval {format_interval(best.interval())}, "
            f"{_seeds(best)}); {reference.variant.label}: {reference.mean():.3f} "
            f"({format_interval(reference.interval())})."
        ]
        if len(reference.runs) < 2:
            said.append("With a single seed there are no intervals: no difference below is more than an observation.")
        others = self.outcomes[1:]
        said += [difference(outcome, reference) for outcome in others if differs(outcome, reference)]
        if alike := [f"{o.variant.label} ({o.mean():.3f})" for o in others if not differs(o, reference)]:
            said.append(
                f"No measurable difference, as the intervals overlap, between {reference.variant.label} "
                f"({reference.mean():.3f}) and: {'; '.join(alike)}."
            )
        for outcome in self.outcomes:
            if outcome.diverged:
                count = f"{outcome.diverged} of {len(outcome.runs)} runs"
                said.append(f"{outcome.variant.label}: {count} diverged (counted as AP 0).")
            elif max(run_study.ap for run_study in outcome.runs) < 0.01:
                said.append(f"{outcome.variant.label} learnt nothing in this time: AP below 0.01 with every seed.")
        said += self._not_learnt()
        said.append(self.suggestion())
        return said

    def class_aps(self) -> dict[str, list[list[float]]]:
        """Return AP of each class: for every set-up, in their order, a value for each of its runs that was measured."""
        found: dict[str, list[list[float]]] = {}
        for place, outcome in enumerate(self.outcomes):
            for run_study in outcome.runs:
                path = run_study.folder / "evaluation.json"
                if run_study.diverged or not path.exists():
                    continue
                for name, numbers in json.loads(path.read_text())["per_class"].items():
                    if numbers["AP"] >= 0:  # -1: a class without objects here
                        found.setdefault(name, [[] for _ in self.outcomes])[place].append(numbers["AP"])
        return found

    def _not_learnt(self) -> Iterator[str]:
        """Yield which classes some set-ups did not learn at all and others did: there imbalance hurts most."""
        for name, aps in self.class_aps().items():
            missed = [
                f"{outcome.variant.label} ({sum(ap < NOT_LEARNT for ap in values)} of {len(values)} runs)"
                for outcome, values in zip(self.outcomes, aps, strict=True)
                if any(ap < NOT_LEARNT for ap in values)
            ]
            best = max((float(np.mean(values)), place) for place, values in enumerate(aps) if values)
            if missed and best[0] >= 10 * NOT_LEARNT:
                said = f"{name} was not learnt (AP below {NOT_LEARNT:g}) with {'; '.join(missed)}"
                yield f"{said}: with {self.outcomes[best[1]].variant.label} its AP is {best[0]:.3f}."

    def suggestion(self) -> str:
        """Return which alpha and gamma to use, as far as the data says."""
        focal = [outcome for outcome in self.outcomes if outcome.variant.options.get("loss") == "focal"]
        focal = [outcome for outcome in focal if "prior" not in outcome.variant.options]
        if len(focal) < 2:
            return "Alpha and gamma were not varied: `--alphas 0.25 0.5 0.75 --gammas 0.5 1 2 5` compares them."
        best, reference = max(focal, key=lambda outcome: outcome.mean()), focal[0]
        options = best.variant.options
        flags = f"--alpha {options['alpha']:g} --gamma {options['gamma']:g}"
        if best is reference:
            return f"Of the focal settings tried, the one that you have is the best here: {flags}."
        if differs(best, reference):
            return f"Use {flags}: measurably better than {reference.variant.label} on this data."
        return (
            f"{flags} has the highest mean of the focal settings, but not measurably: "
            f"{reference.variant.label} is as well supported."
        )

    def rows(self) -> list[list[str]]:
        """Return the comparison as text, a row for each set-up, columns as `HEAD`."""
        reference = self.outcomes[0]
        return [
            [
                outcome.variant.label,
                f"{outcome.mean():.3f}",
                format_interval(outcome.interval()),
                f"{outcome.mean('AP50'):.3f}",
                f"{outcome.mean('AP75'):.3f}",
                "–" if outcome is reference else f"{outcome.mean() - reference.mean():+.3f}",
                "–" if outcome is reference else _verdict(outcome, reference),
                f"{outcome.diverged} of {len(outcome.runs)}",
                "–" if outcome.early_loss is None else f"{outcome.early_loss:.3g}",
                f"{np.mean([run_study.seconds for run_study in outcome.runs]) / 60:.1f}",
            ]
            for outcome in self.outcomes
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "train": self.train,
            "val": self.val,
            "options": to_dict(self.config),
            "set_ups": [
                {
                    "name": outcome.variant.name,
                    "label": outcome.variant.label,
                    "options": outcome.variant.options,
                    "AP": outcome.mean(),
                    "interval": [v if math.isfinite(v) else None for v in outcome.interval()],
                    "runs": [
                        {
                            "seed": run_study.seed,
                            "seconds": run_study.seconds,
                            "early_loss": run_study.early_loss,
                            "diverged": run_study.diverged,
                            "metrics": run_study.metrics,
                        }
                        for run_study in outcome.runs
                    ],
                }
                for outcome in self.outcomes
            ],
            "sentences": self.sentences(),
        }

    def markdown(self) -> str:
        """Return the table for a README."""
        lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows())]) + "\n"


HEAD: Final = (
    *("Loss", "AP", "95 % interval", "AP50", "AP75", "To the first", "Supported", "Diverged"),
    *(f"Loss at step {EARLY_STEP}", "Minutes a run"),
)
NOT_LEARNT: Final = 0.01


def differs(first: Outcome, second: Outcome) -> bool:
    """Return whether the two intervals of AP keep apart: the plain, careful reading of a difference."""
    (low, high), (other_low, other_high) = first.interval(), second.interval()
    return low > other_high or high < other_low


def difference(outcome: Outcome, reference: Outcome) -> str:
    """Return in words how a set-up that differs measurably stands to another."""
    by = outcome.mean() - reference.mean()
    word = "better" if by > 0 else "worse"
    return f"{outcome.variant.label} is {word} than {reference.variant.label} by {abs(by):.3f} AP."


def format_interval(bounds: tuple[float, float]) -> str:
    """Return an interval as text; a dash for one without bounds."""
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if math.isfinite(bounds[0]) else "–"


def _seeds(outcome: Outcome) -> str:
    return f"{len(outcome.runs)} seed" + ("s" if len(outcome.runs) > 1 else "")


def _verdict(outcome: Outcome, reference: Outcome) -> str:
    if not differs(outcome, reference):
        return "no difference"
    return "better" if outcome.mean() > reference.mean() else "worse"
