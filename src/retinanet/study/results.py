"""Summarise the runs of a study: table, confidence intervals, and the differences that the data supports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from retinanet.config import StudyConfig, to_dict
from retinanet.formats.records import DetectionData
from retinanet.former_names import with_former_options
from retinanet.study.comparison import Comparison, count, points, points_interval, with_interval
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
    """Results of a study. The first outcome is the reference that the other outcomes are compared with.

    Args:
        config: options of the study.
        outcomes: runs of each set-up.
        train: description of the training data.
        val: description of the validation data.
        val_data: validation data.
        train_objects: number of objects of each class in the training data, without crowd regions.
        image_intervals: 95 % interval of the difference to the first set-up over resampled validation images, by name
            of the set-up.
    """

    config: StudyConfig
    outcomes: tuple[Outcome, ...]
    train: str
    val: str
    val_data: DetectionData = field(repr=False)
    train_objects: Mapping[str, int] = field(default_factory=dict)
    image_intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def comparisons(self) -> list[Comparison]:
        """Every other set-up compared with the first."""
        return [self._compare(outcome) for outcome in self.outcomes[1:]]

    def _compare(self, outcome: Outcome) -> Comparison:
        return Comparison(
            outcome=outcome,
            reference=self.outcomes[0],
            image_interval=self.image_intervals.get(outcome.variant.name),
        )

    def sentences(self) -> list[str]:
        """Return sentences about the differences that the numbers support, and about failed runs."""
        reference = self.outcomes[0]
        best = max(self.outcomes, key=lambda outcome: outcome.mean())
        sentences = [
            f"Highest AP: {best.variant.label}, {best.mean():.3f} (95 % interval {format_interval(best.interval())}, "
            f"{count(len(best.runs), 'seed')}); {reference.variant.label}: {reference.mean():.3f} "
            f"({format_interval(reference.interval())})."
        ]
        if len(reference.runs) < 2:
            sentences.append(
                "Differences may be chance: with a single seed there is no confidence interval. Use --seeds 3 or more."
            )
        else:
            for comparison in sorted(self.comparisons, key=lambda found: not found.difference.is_supported):
                sentences += [comparison.sentence(), *comparison.group_sentences(self.class_groups())]
        for outcome in self.outcomes:
            if outcome.diverged:
                runs = f"{outcome.diverged} of {len(outcome.runs)} runs"
                sentences.append(f"{outcome.variant.label}: {runs} diverged (counted as AP 0).")
            elif max(run.ap for run in outcome.runs) < 0.01:
                sentences.append(
                    f"{outcome.variant.label} learnt nothing: AP is below 0.01 with every seed. Train for more epochs."
                )
        sentences += self._not_learnt()
        if self.varies_loss:
            sentences.append(self.suggestion())
        return sentences

    def class_aps(self) -> dict[str, list[list[float]]]:
        """Return the AP of each class: one list for each set-up, with one value for each run that did not diverge.

        The classes are those with objects in the validation data, by ascending number of objects in the training data.
        """
        runs = [run for outcome in self.outcomes for run in outcome.runs]
        names = dict.fromkeys(name for run in runs for name in run.metrics.get("per_class", {}))
        aps = {
            name: [
                [ap for run in outcome.runs if not run.diverged and (ap := run.class_ap(name)) is not None]
                for outcome in self.outcomes
            ]
            for name in sorted(names, key=lambda name: (self.train_objects.get(name, 0), name))
        }
        return {name: values for name, values in aps.items() if any(values)}

    def class_groups(self) -> dict[str, list[str]]:
        """Return the rarest and the most common third of the classes, by number of objects in the training data.

        Return no groups for fewer than three classes, or if the groups have equally many objects per class.
        """
        names = [name for name in self.class_aps() if name in self.train_objects]
        third = len(names) // 3
        if not third or self.train_objects[names[third - 1]] >= self.train_objects[names[-third]]:
            return {}
        return {"rare": names[:third], "common": names[-third:]}

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

    @property
    def varies_loss(self) -> bool:
        """Whether another set-up than the first has another loss, alpha, gamma or prior, and no other change."""
        return any(set(outcome.variant.options) <= LOSS_OPTIONS for outcome in self.outcomes[1:])

    def suggestion(self) -> str:
        """Return a sentence about which alpha and gamma to use, as far as the runs support a choice."""
        focal = [outcome for outcome in self.outcomes if set(outcome.variant.options) == {"loss", "alpha", "gamma"}]
        focal = [outcome for outcome in focal if outcome.variant.options["loss"] == "focal"]
        if len(focal) < 2:
            return "Alpha and gamma were not varied: compare values with `--alphas 0.25 0.5 0.75 --gammas 0.5 1 2 5`."
        best, reference = max(focal, key=lambda outcome: outcome.mean()), focal[0]
        options = best.variant.options
        flags = f"--alpha {options['alpha']:g} --gamma {options['gamma']:g}"
        if best is reference:
            return f"The configured focal settings are the best of those tried: {flags}."
        if Comparison(outcome=best, reference=reference).difference.is_supported:
            return f"Use {flags}: measurably better than {reference.variant.label} on this data."
        return (
            f"{flags} has the highest mean AP of the focal settings, but is not measurably better than "
            f"{reference.variant.label}: either can be used."
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return titles and rows of the table of the set-ups."""
        return list(COLUMN_TITLES), self.rows()

    def rows(self) -> list[list[str]]:
        """Return the table as text, one row for each set-up; `COLUMN_TITLES` has the column titles."""
        rows = []
        for outcome in self.outcomes:
            found = None if outcome is self.outcomes[0] else self._compare(outcome)
            rows.append(
                [
                    outcome.variant.label,
                    f"{outcome.mean():.3f}",
                    format_interval(outcome.interval()),
                    f"{outcome.mean('AP50'):.3f}",
                    f"{outcome.mean('AP75'):.3f}",
                    *(["–"] * len(DIFFERENCE_TITLES) if found is None else _difference_cells(found)),
                    f"{outcome.diverged} of {len(outcome.runs)}",
                    "–" if outcome.early_loss is None else f"{outcome.early_loss:.3g}",
                    f"{np.mean([run.seconds for run in outcome.runs]) / 60:.1f}",
                ]
            )
        return rows

    def class_table(self) -> tuple[list[str], list[list[str]]]:
        """Return titles and rows of the table of classes: AP of the first set-up, differences of the others.

        The last rows hold the means of the rare and the common classes. Differences are paired by seed, in AP points.
        """
        titles = ["Class", "Training objects", "AP of the first set-up"]
        titles += [outcome.variant.label for outcome in self.outcomes[1:]]
        aps = {name: values[0] for name, values in self.class_aps().items()}
        rows = [
            [
                name,
                f"{self.train_objects[name]:,}" if name in self.train_objects else "–",
                f"{np.mean(values):.3f}" if values else "–",
                *(with_interval(found.class_difference([name])) for found in self.comparisons),
            ]
            for name, values in aps.items()
        ]
        for group, names in self.class_groups().items():
            means = [float(np.mean(aps[name])) for name in names if aps[name]]
            rows.append(
                [
                    f"mean of the {group} third",
                    f"{sum(self.train_objects[name] for name in names):,}",
                    f"{np.mean(means):.3f}" if means else "–",
                    *(with_interval(found.class_difference(names)) for found in self.comparisons),
                ]
            )
        return titles, rows

    def to_json(self) -> dict[str, Any]:
        """Return options, runs and sentences as plain values for JSON."""
        classes, groups = self.class_aps(), self.class_groups()
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
                    "difference": None
                    if outcome is self.outcomes[0]
                    else self._compare(outcome).to_json(list(classes), groups),
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
            "train_objects": dict(self.train_objects),
            "class_groups": groups,
            "sentences": self.sentences(),
        }

    def markdown(self) -> str:
        """Return the table of the set-ups and the table of the classes in Markdown."""
        tables = [self.table()]
        if self.class_aps():
            tables.append(self.class_table())
        return "\n".join(markdown_table(titles, rows) for titles, rows in tables)


DIFFERENCE_TITLES: Final = ("Difference", "Paired interval", "Image interval", "Verdict", "Detectable")
"""Titles of the columns about the difference to the first set-up."""
COLUMN_TITLES: Final = (
    *("Set-up", "AP", "95 % interval", "AP50", "AP75"),
    *DIFFERENCE_TITLES,
    *("Diverged", f"Loss at step {EARLY_STEP}", "Minutes per run"),
)
"""Column titles of the table. Differences to the first set-up, their intervals and the detectable difference are in AP
points."""
LOSS_OPTIONS: Final = frozenset({"loss", "alpha", "gamma", "prior"})
"""Options of a set-up that concern the loss."""
NOT_LEARNT: Final = 0.01
"""AP of a class below which the class was not learnt."""


def format_interval(bounds: tuple[float, float]) -> str:
    """Return an interval as text; a dash for an interval without bounds."""
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if math.isfinite(bounds[0]) else "–"


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _difference_cells(found: Comparison) -> list[str]:
    difference = found.difference
    return [
        points(difference.mean),
        points_interval(difference.low, difference.high),
        "–" if found.image_interval is None else points_interval(*found.image_interval),
        found.verdict,
        f"{100 * difference.detectable:.1f}" if math.isfinite(difference.detectable) else "–",
    ]
