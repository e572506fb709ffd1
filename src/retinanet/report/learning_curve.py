"""Write the report of a learning curve: AP over the number of training images, and the expected gain of more images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.report import figures
from retinanet.report.html import Report
from retinanet.study.extrapolation import FACTOR, FACTOR_TEXT, power_law

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from retinanet.study.learning_curve import LearningCurve

CLASSES_DRAWN: Final = len(figures.SERIES)
"""Number of classes in the figure of the classes: those with the fewest training objects."""


def learning_curve_report(curve: LearningCurve, path: Path) -> Path:
    """Write the report of a finished learning curve. Return its path."""
    epochs = curve.config.schedule.epochs
    report = Report(
        title="Learning curve of this dataset",
        subtitle=f"{curve.set_up.label}; up to {curve.images[-1]:,} training images; evaluated on {curve.val}; equal "
        f"budgets, {epochs} epochs for all images",
    )
    report.in_short += curve.sentences()
    section = report.section("AP over the number of images")
    means = "; ".join(
        f"{images} images {outcome.mean():.3f}" for images, outcome in zip(curve.images, curve.outcomes, strict=True)
    )
    section.figure(
        curve_figure(curve),
        alt=f"Chart of AP over the number of training images: {means}.",
        caption="Small dots: training runs. Line: fitted curve a - b n^-c, dashed beyond the measured images. Bar: "
        f"95 % interval at {FACTOR_TEXT} as many images. Without a line, no curve fits the runs.",
    )
    if aps := dict(list(curve.class_aps().items())[:CLASSES_DRAWN]):
        lines = {name: (curve.images, [float(np.mean(values)) for values in found]) for name, found in aps.items()}
        figure = figures.line_chart(lines, x="training images", y="AP (0 to 1)", markers=True, smooth=False)
        section.figure(
            figure,
            alt="Chart of the AP of single classes over the number of training images: "
            + "; ".join(f"{name} from {ys[0]:.3f} to {ys[-1]:.3f}" for name, (_, ys) in lines.items()),
            caption="Mean AP of the classes with the fewest training objects.",
        )
    section.table(*curve.table(), caption="AP after the last training step, mean over the seeds.")
    section.table(
        *curve.class_table(),
        caption=f"AP of each class, rarest class first, and the gain in AP points that {FACTOR_TEXT} as many images "
        "are expected to bring, with its 95 % interval.",
    )
    options = {name: value for name, value in curve.to_json()["options"].items() if value is not None}
    report.section("How to reproduce this study").details("All options", json.dumps(options, indent=2))
    return report.write(path)


def curve_figure(curve: LearningCurve) -> Figure:
    """Draw AP over the number of images: the runs, the fitted curve, and the interval of the extrapolation."""
    figure, axes = figures.new_axes(x="training images", y="AP (0 to 1)")
    for images, outcome in zip(curve.images, curve.outcomes, strict=True):
        axes.plot([images] * len(outcome.runs), [run.ap for run in outcome.runs], ".", color=figures.MUTED)
    means = [outcome.mean() for outcome in curve.outcomes]
    axes.plot(curve.images, means, "o", color=figures.SERIES[0], markersize=6)
    overall, most = curve.overall(), curve.images[-1]
    if overall.parameters is not None:
        measured = np.linspace(curve.images[0], most, 60)
        beyond = np.linspace(most, FACTOR * most, 30)
        for xs, style in ((measured, "-"), (beyond, "--")):
            axes.plot(xs, power_law(xs / most, *overall.parameters), style, color=figures.SERIES[0], linewidth=1.7)
        now = float(power_law(np.array([1.0]), *overall.parameters)[0])
        bounds = [now + overall.low, now + overall.high]
        axes.plot([FACTOR * most] * 2, bounds, color=figures.SERIES[0], linewidth=2.6)
    axes.set_xlim(left=0)
    return figure
