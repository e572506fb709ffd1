"""Draw precision, recall and F1 over the score threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.evaluate.per_image import MATCH_IOU, best_threshold
from retinanet.evaluate.threshold_curve import threshold_curve
from retinanet.report import figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from retinanet.evaluate.per_image import ImageResults
    from retinanet.evaluate.threshold_curve import ThresholdCurve
    from retinanet.report.html import Section


BEST: Final = " Of 0.05, 0.10, ..., 0.95, this threshold has the highest F1."


def f1_figure(section: Section, items: Sequence[ImageResults], threshold: float | None = None) -> None:
    """Add the curves of all classes together, with a marked threshold. Add nothing without detections or objects.

    Args:
        section: section of the report.
        items: all evaluated images with their detections.
        threshold: marked threshold. Default: the threshold with the highest F1, see `per_image.best_threshold`.
    """
    curve = threshold_curve(items)
    if not np.isfinite(curve.recall_T).all() or not curve.f1_T.any():
        return
    is_best = threshold is None
    threshold = best_threshold(items) if threshold is None else threshold
    f1, precision, recall = (
        float(np.interp(threshold, curve.thresholds_T, np.nan_to_num(values, nan=1.0)))
        for values in (curve.f1_T, curve.precision_T, curve.recall_T)
    )
    at = f"At the threshold {threshold:.2f}: F1 {f1:.3f}, precision {precision:.3f}, recall {recall:.3f}."
    section.figure(
        threshold_chart(curve, threshold, f1),
        alt=f"Line chart of F1, precision and recall over the score threshold. {at}",
        caption=f"F1, precision and recall of all classes over the score threshold, at IoU {MATCH_IOU:g}. A higher "
        f"threshold shows fewer detections. {at}{BEST if is_best else ''}",
    )


def threshold_chart(curve: ThresholdCurve, threshold: float, f1: float) -> Figure:
    """Draw the curves, with a vertical line and a dot at the threshold and its F1."""
    lines = {
        name: (curve.thresholds_T.tolist(), values_T.tolist())
        for name, values_T in (("F1", curve.f1_T), ("precision", curve.precision_T), ("recall", curve.recall_T))
    }
    figure = figures.line_chart(lines, x="score threshold", y="value (0 to 1)", smooth=False, legend="above")
    axes = figure.axes[0]
    axes.axvline(threshold, color=figures.MUTED, linewidth=1, linestyle=":")
    axes.plot([threshold], [f1], "o", color=figures.SERIES[0], markersize=7)
    # The label lies below the curves and towards the middle of the chart.
    left = threshold > 0.5
    axes.annotate(
        f"{threshold:.2f}: F1 {f1:.2f}",
        (threshold, 0.03),
        textcoords="offset points",
        xytext=(-6 if left else 6, 0),
        ha="right" if left else "left",
        color=figures.INK,
        fontsize=figures.FONT_SIZE,
    )
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_ylim(0, 1.02)
    return figure
