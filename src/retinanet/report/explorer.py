"""The explorable evaluation: a score threshold that moves the counts, the confusion matrix and the boxes at once.

Python writes the state at the threshold of the report, which needs no script, and the data of all thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.outcomes import KINDS, SIZES, STEPS, UNLABELLED, Outcomes
from retinanet.report import embedded_images
from retinanet.report.confusion_table import TABLE_CLASSES, confusion_table, intro
from retinanet.report.embedded_images import STATIC
from retinanet.report.html import render

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.analysis.next_steps import NextStep
    from retinanet.report.html import Report, Section

MAX_ROWS: Final = 120_000
"""Maximum number of rows in the tables of a run. With more, the slider starts at a higher threshold."""
SCRIPTS: Final = ("outcomes", "overlay", "viewer", "matrix")
"""Scripts that the explorer needs."""
COLUMNS: Final = {
    "objects": ("label", "size", "kind", "step"),
    "false": ("label", "size", "kind", "step"),
    "pairs": ("object", "label", "size", "step"),
}
"""Tables of a run and their columns; the last column is the highest threshold step at which the row counts."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A model or results file in the report, with its outcomes on the data."""

    name: str
    outcomes: Outcomes


class Explorer:
    """The explorable evaluation of one run, or of runs that are compared on the same images.

    Args:
        report: report to which the explorer is added.
        runs: the runs; the first one is the reference of a comparison.
        seed: seed of the choice of random images.
    """

    def __init__(self, report: Report, runs: Sequence[Run], *, seed: int = 0) -> None:
        self.report, self.runs = report, runs
        self.shown = runs[:2]  # without a script, the first two runs are compared
        images = runs[0].outcomes.images
        present = [embedded_images.is_present(image) for image in images]
        self.absent = len(images) - sum(present)
        worst, others = embedded_images.choose_images(self._errors(), present, seed=seed)
        limit = min(embedded_images.MAX_BYTES, report.free_bytes)
        self.embedded = embedded_images.embed([*worst, *others], images, limit)
        self.worst = min(len(worst), len(self.embedded))
        tables = [tables_of(run.outcomes) for run in runs]
        self.lowest = min(lowest_step(one) for one in tables)
        if sum(len(table) for one in tables for table in one.values()) > MAX_ROWS * len(runs):
            self.lowest = max(_affordable_step(one) for one in tables)
            report.in_short.append(
                f"Detections with a score below {self.lowest / STEPS:.2f} are left out of the threshold slider and of "
                "the images, because the page would be too large. The metrics contain all detections."
            )

    def first_screen(self, verdict: Sequence[str], steps: Sequence[NextStep]) -> None:
        """Add the verdict, the counts, the threshold and the next commands as the first screen of the report."""
        counts = [run.outcomes.counts() for run in self.shown]
        runs = [run.name for run in self.shown] if len(self.runs) > 1 else []
        markup = render(
            "first_screen.html",
            verdict=verdict,
            counts=counts,
            names=runs,
            steps=[run.outcomes.step for run in self.shown],
            lowest=self.lowest,
            last=STEPS,
        )
        self.report.first.interactive("explorer", markup, self._data(), scripts=SCRIPTS)
        if steps:
            self.report.first.commands([(f"{step.reason}.", step.command) for step in steps], title="Next")

    def images_section(self, section: Section) -> None:
        """Add the filters and the images with their boxes."""
        if self.absent:
            number = "1 image file" if self.absent == 1 else f"{self.absent:,} image files"
            section.text(f"{number} could not be found. The counts cover these images; the images are not shown.")
        if not self.embedded:
            return
        steps = [run.outcomes.step for run in self.shown]
        static = [
            (
                embedded,
                [
                    embedded_images.static_boxes(run.outcomes.images[embedded.index], step, run.outcomes.classes)
                    for run, step in zip(self.shown, steps, strict=True)
                ],
            )
            for embedded in self.embedded[:STATIC]
        ]
        section.markup(
            render(
                "images.html",
                images=static,
                names=[run.name for run in self.runs] if len(self.runs) > 1 else [],
                about=self._about_images(),
                classes=self.runs[0].outcomes.classes,
                kinds=self._kinds(),
                sizes=SIZES,
                steps=steps,
            )
        )

    def confusion_section(self, section: Section) -> None:
        """Add the confusion matrix of each shown run, of all images."""
        for run in self.shown:
            name = run.name if len(self.runs) > 1 else ""
            section.markup(confusion_table(run.outcomes, name=name, number=self.runs.index(run)))
            if not name:
                section.text(intro(run.outcomes))

    def _errors(self) -> list[int]:
        """Return the number of errors of each image; with several runs, the objects that not all runs find."""
        found = []
        for run in self.runs:
            score = run.outcomes.step * 10
            found.append([(image.found_G >= score) | image.crowd_G for image in run.outcomes.images])
        if len(self.runs) > 1:
            return [
                int((np.stack(of_image).any(0) & ~np.stack(of_image).all(0)).sum())
                for of_image in zip(*found, strict=True)
            ]
        first = self.runs[0].outcomes
        return [
            int((~found_G).sum()) + int(((image.kind_D >= 0) & (image.score_D >= first.step * 10)).sum())
            for found_G, image in zip(found[0], first.images, strict=True)
        ]

    def _kinds(self) -> list[tuple[int, str]]:
        """Return the kinds of errors that occur, with their index."""
        present = {
            int(kind)
            for run in self.runs
            for table in (run.outcomes.objects, run.outcomes.false)
            for kind in table[:, 2]
        }
        return [(number, kind) for number, kind in enumerate(KINDS) if number in present]

    def _about_images(self) -> str:
        """Return which images are embedded."""
        total, shown = len(self.runs[0].outcomes.images), len(self.embedded)
        what = "objects that only one model finds" if len(self.runs) > 1 else "errors"
        order = f"The images with the most {what} come first"
        if shown == total:
            return f"{order}. All {total:,} images are embedded." if total > 1 else "The image is embedded."
        random = shown - self.worst
        return (
            f"{order}. {shown:,} of {total:,} images are embedded: {self.worst:,} with the most {what}, and {random:,} "
            "random ones. The counts and the confusion matrix cover all images."
        )

    def _data(self) -> dict[str, Any]:
        outcomes = [run.outcomes for run in self.runs]
        return {
            "classes": outcomes[0].classes,
            "kinds": KINDS,
            "unlabelled": UNLABELLED,
            "lowest": self.lowest,
            "last": STEPS,
            "page": STATIC,
            "tableClasses": TABLE_CLASSES,
            "runs": [run_data(run.name, run.outcomes, self.lowest) for run in self.runs],
            "images": [
                embedded_images.image_data(embedded, outcomes, self.lowest, with_source=number >= STATIC)
                for number, embedded in enumerate(self.embedded)
            ],
        }


def tables_of(outcomes: Outcomes) -> dict[str, npt.NDArray[np.integer]]:
    """Return the distinct rows of the tables of a run, with the number of equal rows as a further column."""
    found = {}
    for name in COLUMNS:
        rows, counts = np.unique(getattr(outcomes, name), axis=0, return_counts=True)
        found[name] = np.column_stack([rows, counts])
    return found


def run_data(name: str, outcomes: Outcomes, lowest: int = 0) -> dict[str, Any]:
    """Return the tables of a run for the script, without detections below the threshold step `lowest`."""
    data: dict[str, Any] = {"name": name, "step": max(outcomes.step, lowest)}
    for table, rows in tables_of(outcomes).items():
        kept = rows if table == "objects" else rows[rows[:, 3] >= lowest]
        data[table] = {column: kept[:, k].tolist() for k, column in enumerate((*COLUMNS[table], "count"))}
    return data


def lowest_step(tables: dict[str, npt.NDArray[np.integer]]) -> int:
    """Return the threshold step at which all detections are shown."""
    steps = [int(step) for table in tables.values() for step in table[:, 3] if step >= 0]
    return min(steps, default=0)


def _affordable_step(tables: dict[str, npt.NDArray[np.integer]]) -> int:
    """Return the lowest threshold step at which the tables have at most `MAX_ROWS` rows."""
    room = max(0, MAX_ROWS - len(tables["objects"]))
    steps = np.sort(np.concatenate([tables["false"][:, 3], tables["pairs"][:, 3]]))
    return int(steps[-room - 1]) + 1 if len(steps) > room else lowest_step(tables)
