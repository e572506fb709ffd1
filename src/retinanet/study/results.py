"""Summarise the runs of a study: table, confidence intervals, and the differences that the data supports."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from retinanet.config import StudyConfig, to_dict
from retinanet.formats.records import DetectionData
from retinanet.former_names import with_former_options
from retinanet.study.outcomes import EARLY_STEP, Outcome

PAPER_RESULTS: Final = (
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
"""(loss, network and image size, COCO AP in percent) from arXiv 1708.02002, tables 1a, 1b and 1d, section 4.1.

AP is None where training diverged."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Results of a study. The first outcome is the reference that the other outcomes are compared with."""

    config: StudyConfig
    outcomes: tuple[Outcome, ...]
    train: str
    val: str
    val_data: DetectionData = field(repr=False)

    def sentences(self) -> list[str]:
        """Return sentences about the differences that the numbers support, and about failed runs."""
        reference = self.outcomes[0]
        ranked = sorted(self.outcomes, key=lambda outcome: -outcome.mean())
        best = ranked[0]
        sentences = [
            f"Highest AP: {best.variant.label}, {best.mean():.3f} (95 % interval {format_interval(best.interval())}, "
            f"{_seeds(best)}); {reference.variant.label}: {reference.mean():.3f} "
            f"({format_interval(reference.interval())})."
        ]
        if len(reference.runs) < 2:
            sentences.append(
                "Differences may be chance: with a single seed there is no confidence interval. Use --seeds 3 or more."
            )
        others = self.outcomes[1:]
        sentences += [difference(outcome, reference) for outcome in others if differs(outcome, reference)]
        if alike := [f"{o.variant.label} ({o.mean():.3f})" for o in others if not differs(o, reference)]:
            sentences.append(
                f"No measurable difference, because the intervals overlap, between {reference.variant.label} "
                f"({reference.mean():.3f}) and: {'; '.join(alike)}."
            )
        for outcome in self.outcomes:
            if outcome.diverged:
                count = f"{outcome.diverged} of {len(outcome.runs)} runs"
                sentences.append(f"{outcome.variant.label}: {count} diverged (counted as AP 0).")
            elif max(run.ap for run in outcome.runs) < 0.01:
                sentences.append(
                    f"{outcome.variant.label} learnt nothing: AP is below 0.01 with every seed. Train for more epochs."
                )
        sentences += self._not_learnt()
        sentences.append(self.suggestion())
        return sentences

    def class_aps(self) -> dict[str, list[list[float]]]:
        """Return the AP of each class: one list for each set-up, with one value for each run that did not diverge."""
        aps: dict[str, list[list[float]]] = {}
        for index, outcome in enumerate(self.outcomes):
            for run in outcome.runs:
                path = run.folder / "evaluation.json"
                if run.diverged or not path.exists():
                    continue
                for name, numbers in json.loads(path.read_text())["per_class"].items():
                    if numbers["AP"] >= 0:  # -1: the validation data has no object of the class
                        aps.setdefault(name, [[] for _ in self.outcomes])[index].append(numbers["AP"])
        return aps

    def _not_learnt(self) -> Iterator[str]:
        """Yield a sentence for each class that some set-ups learnt and others did not: imbalance affects it most."""
        for name, aps in self.class_aps().items():
            missed = [
                f"{outcome.variant.label} ({sum(ap < NOT_LEARNT for ap in values)} of {len(values)} runs)"
                for outcome, values in zip(self.outcomes, aps, strict=True)
                if any(ap < NOT_LEARNT for ap in values)
            ]
            best = max((float(np.mean(values)), index) for index, values in enumerate(aps) if values)
            if missed and best[0] >= 10 * NOT_LEARNT:
                sentence = f"{name} was not learnt (AP below {NOT_LEARNT:g}) with {'; '.join(missed)}"
                yield f"{sentence}: with {self.outcomes[best[1]].variant.label} its AP is {best[0]:.3f}."

    def suggestion(self) -> str:
        """Return a sentence about which alpha and gamma to use, as far as the runs support a choice."""
        focal = [outcome for outcome in self.outcomes if outcome.variant.options.get("loss") == "focal"]
        focal = [outcome for outcome in focal if "prior" not in outcome.variant.options]
        if len(focal) < 2:
            return "Alpha and gamma were not varied: compare values with `--alphas 0.25 0.5 0.75 --gammas 0.5 1 2 5`."
        best, reference = max(focal, key=lambda outcome: outcome.mean()), focal[0]
        options = best.variant.options
        flags = f"--alpha {options['alpha']:g} --gamma {options['gamma']:g}"
        if best is reference:
            return f"The configured focal settings are the best of those tried: {flags}."
        if differs(best, reference):
            return f"Use {flags}: measurably better than {reference.variant.label} on this data."
        return (
            f"{flags} has the highest mean AP of the focal settings, but is not measurably better than "
            f"{reference.variant.label}: either can be used."
        )

    def rows(self) -> list[list[str]]:
        """Return the table as text, one row for each set-up; `COLUMN_TITLES` has the column titles."""
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
                f"{np.mean([run.seconds for run in outcome.runs]) / 60:.1f}",
            ]
            for outcome in self.outcomes
        ]

    def to_json(self) -> dict[str, Any]:
        """Return options, runs and sentences as plain values for JSON."""
        return {
            "train": self.train,
            "val": self.val,
            "options": with_former_options(to_dict(self.config)),
            "set_ups": [
                {
                    "name": outcome.variant.name,
                    "label": outcome.variant.label,
                    "options": outcome.variant.options,
                    "AP": outcome.mean(),
                    "interval": [v if math.isfinite(v) else None for v in outcome.interval()],
                    "runs": [
                        {
                            "seed": run.seed,
                            "seconds": run.seconds,
                            "early_loss": run.early_loss,
                            "diverged": run.diverged,
                            "metrics": run.metrics,
                        }
                        for run in outcome.runs
                    ],
                }
                for outcome in self.outcomes
            ],
            "sentences": self.sentences(),
        }

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = ["| " + " | ".join(COLUMN_TITLES) + " |", "|---" * len(COLUMN_TITLES) + "|"]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows())]) + "\n"


COLUMN_TITLES: Final = (
    *("Loss", "AP", "95 % interval", "AP50", "AP75", "Difference to first", "Supported", "Diverged"),
    *(f"Loss at step {EARLY_STEP}", "Minutes per run"),
)
"""Column titles of the table."""
NOT_LEARNT: Final = 0.01
"""AP of a class below which the class was not learnt."""


def differs(first: Outcome, second: Outcome) -> bool:
    """Return whether the confidence intervals of AP do not overlap: a conservative test of a difference."""
    (low, high), (other_low, other_high) = first.interval(), second.interval()
    return low > other_high or high < other_low


def difference(outcome: Outcome, reference: Outcome) -> str:
    """Return a sentence about the difference of two set-ups whose intervals do not overlap."""
    by = outcome.mean() - reference.mean()
    word = "better" if by > 0 else "worse"
    return f"{outcome.variant.label} is {word} than {reference.variant.label} by {abs(by):.3f} AP."


def format_interval(bounds: tuple[float, float]) -> str:
    """Return an interval as text; a dash for an interval without bounds."""
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if math.isfinite(bounds[0]) else "–"


def _seeds(outcome: Outcome) -> str:
    return f"{len(outcome.runs)} seed" + ("s" if len(outcome.runs) > 1 else "")


def _verdict(outcome: Outcome, reference: Outcome) -> str:
    if not differs(outcome, reference):
        return "no difference"
    return "better" if outcome.mean() > reference.mean() else "worse"
