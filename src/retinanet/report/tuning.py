"""Write the report of tuned thresholds: the promise, the classes, and the reliability of the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinanet.analysis.tuning_result import COLUMN_TITLES
from retinanet.report import figures
from retinanet.report.html import Report

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from retinanet.analysis.scored_detections import Reliability
    from retinanet.analysis.tuning_result import TuningResult


def tuning_report(found: TuningResult, path: Path, *, model: Path, data: Path) -> Path:
    """Write the report of `retinanet tune`. Return its path.

    Args:
        found: result of `tune`.
        path: path of the HTML file.
        model: path of the checkpoint before tuning, for the title.
        data: path of the dataset, for the subtitle.
    """
    report = Report(title=f"Thresholds of {model.name} for {found.tuned.aim}", subtitle=f"Dataset: {data}")
    report.in_short += found.sentences()
    section = report.section("Classes")
    section.text(
        "Detections with a higher score than the threshold of their class are kept. Recall and precision are those of "
        "these images, at IoU 0.5. The log losses are measured on images that the calibration was not fitted on: the "
        "lower, the better. Isotonic regression is shown for comparison and not used: no convolution computes it."
    )
    section.table(COLUMN_TITLES, found.rows())
    if found.reliability is not None:
        section = report.section("Reliability of the scores")
        before, after = found.reliability
        section.figure(
            reliability_diagram(before, after),
            alt=f"Reliability diagram. Calibration error {before.error:.3f} before and {after.error:.3f} after.",
            caption="Share of right detections (IoU 0.5) by mean score, in bins of scores. On the diagonal, a score is "
            "the probability that the detection is right. After: with calibrations that were fitted on other images.",
        )
        section.table(
            ["", "Mean score", "Right", "Detections"],
            [(name, *row) for name, one in (("before", before), ("after", after)) for row in one.bins],
        )
    return report.write(path)


def reliability_diagram(before: Reliability, after: Reliability) -> Figure:
    """Draw the share of right detections against the mean score of each bin."""
    figure, axes = figures.new_axes(x="mean score", y="share of right detections")
    axes.plot([0, 1], [0, 1], color=figures.INK, linewidth=0.8, alpha=0.5, label="ideal")
    for number, (name, one) in enumerate((("before", before), ("after", after))):
        scores, shares = ([row[place] for row in one.bins] for place in (0, 1))
        style = {"color": figures.SERIES[number], "linestyle": figures.DASHES[number], "marker": "os"[number]}
        axes.plot(scores, shares, label=name, linewidth=1.7, markersize=4, **style)
    figures.add_legend(axes)
    return figure
