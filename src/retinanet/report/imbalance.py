"""Report the class imbalance: shares of the loss, figure 4 of the paper, and the shares during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.imbalance import GAMMAS, SIZES
from retinanet.report import figures, summary

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from retinanet.analysis.imbalance import Imbalance
    from retinanet.report.html import Report, Section

KINDS: Final = {
    "hard_positive": "hard objects",
    "easy_positive": "easy objects",
    "hard_negative": "hard background",
    "easy_negative": "easy background",
}
AREAS: Final = {
    "hard_positive": (figures.SERIES[0], 0.85),
    "easy_positive": (figures.SERIES[0], 0.3),
    "hard_negative": (figures.SERIES[1], 0.85),
    "easy_negative": (figures.SERIES[1], 0.3),
}
"""Colour and opacity of each kind, from the bottom of the stack. Objects are blue, background is orange."""
FIRST_SHARE: Final = 0.01
"""Share of the loss at which the logarithmic axis of figure 4 starts."""
MAX_CLASSES: Final = 20
"""Maximum number of rows of the table of classes."""
MOST_TICKS: Final = 3
"""Maximum number of intervals between the labels of the logarithmic axis."""
POINTS: Final = 400
"""Points of a drawn curve. More points make no visible difference."""


def imbalance_section(report: Report, imbalance: Imbalance) -> None:
    """Add the class imbalance of a trained model: sentences, tables, and figure 4 of the paper."""
    section = report.section("Class imbalance: where the loss comes from")
    for sentence in imbalance.sentences():
        section.text(sentence)
    shares_SE, gradients_SE = imbalance.loss_shares_SE, imbalance.gradient_shares_SE
    kinds = [("objects", 0), ("background", 1)]
    section.table(
        ["Examples", "Number", "Loss", "Gradient"],
        [
            (f"{ease} {name}", int(imbalance.examples_SE[s, e]), float(shares_SE[s, e]), float(gradients_SE[s, e]))
            for name, s in kinds
            for ease, e in (("easy", 0), ("hard", 1))
        ],
        caption="Shares of the classification loss and of its gradient. An example is one (anchor, class) pair. An "
        f"example is easy if the predicted probability of its true label is at least {imbalance.easy_from:g}.",
    )
    figure_four(section, imbalance)
    total = max(float(imbalance.loss_SE.sum()), 1e-30)
    chosen = sorted(np.argsort(-imbalance.class_loss_KS.sum(axis=1), kind="stable")[:MAX_CLASSES].tolist())
    only = (
        f" Only the {MAX_CLASSES} classes with the largest loss are shown."
        if len(imbalance.classes) > MAX_CLASSES
        else ""
    )
    section.table(
        ["Class", "Positives", "Objects", "Background"],
        [
            (
                imbalance.classes[k],
                int(imbalance.class_positives_K[k]),
                *(float(v) / total for v in imbalance.class_loss_KS[k]),
            )
            for k in chosen
        ],
        caption="By class: number of positive anchors, and shares of the total loss from objects and from background."
        + only,
    )
    section.table(
        ["Level", "Positives", "Objects", "Background"],
        [
            (
                f"P{level}",
                int(imbalance.level_positives_L[i]),
                *(float(v) / total for v in imbalance.level_loss_LS[i]),
            )
            for i, level in enumerate(imbalance.levels)
        ],
        caption="By feature level: number of positive anchors, and shares of the total loss from objects and from "
        "background.",
    )
    if imbalance.size_positives.sum():
        section.table(
            ["Size", "Positives", "Share", "Loss"],
            [
                (
                    name,
                    int(imbalance.size_positives[i]),
                    float(imbalance.size_positives[i] / imbalance.size_positives.sum()),
                    float(imbalance.size_loss[i] / max(imbalance.size_loss.sum(), 1e-30)),
                )
                for i, name in enumerate(SIZES)
            ],
            caption="By COCO object size (small: below 32² pixels, large: from 96² pixels). Share: share of the "
            "positive anchors. Loss: share of the loss of objects.",
        )


def figure_four(section: Section, imbalance: Imbalance) -> None:
    """Add the cumulative loss of objects and of background for several values of gamma (figure 4 of the paper)."""
    for positive, name in ((True, "objects"), (False, "background")):
        hardest = ", ".join(
            f"{imbalance.hardest_share(gamma, 0.05, positive=positive):.0%} at gamma {gamma:g}" for gamma in GAMMAS
        )
        if positive:
            what = (
                "cumulative share of the focal loss, with examples sorted from easiest to hardest. A curve along the "
                "diagonal means that all examples have equal losses. A curve in the lower right corner means that few "
                "hard examples dominate the loss"
            )
        else:
            what = (
                "share of the focal loss that the hardest examples have, over their share of all examples. The axis is "
                "logarithmic, because a small part of the background has nearly all of the focal loss. A curve further "
                "left means that fewer examples dominate the loss"
            )
        section.figure(
            cumulative_chart(imbalance) if positive else hardest_chart(imbalance),
            alt=f"Share of the focal loss of the {name} over the share of examples. "
            f"The hardest 5 % of the examples have these shares of the loss: {hardest}.",
            caption=f"Figure 4 of the paper, for the {name} of this model and dataset: {what}. "
            f"The hardest 5 % of the examples have these shares of the loss: {hardest}.",
        )


def cumulative_chart(imbalance: Imbalance) -> Figure:
    """Draw figure 4 of the paper for objects: share of the loss over the share of examples, easiest first."""
    lines = {}
    for gamma in GAMMAS:
        share, loss = imbalance.cumulative_loss(gamma, positive=True)
        # The curves differ at their steep end, so the points are spaced evenly along both axes.
        levels = np.unique(
            np.concatenate([np.linspace(0, 1, POINTS), np.interp(np.linspace(0, 1, POINTS), loss, share)])
        )
        lines[f"gamma {gamma:g}"] = (levels.tolist(), np.interp(levels, share, loss).tolist())
    figure = figures.line_chart(
        lines, x="share of the examples, easiest first", y="share of the loss (0 to 1)", smooth=False, legend="above"
    )
    axes = figure.axes[0]
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    return figure


def hardest_chart(imbalance: Imbalance) -> Figure:
    """Draw figure 4 of the paper for background: share of the loss over the share of the hardest examples.

    The x axis is logarithmic and starts where the first curve has 1 % of the loss.
    """
    lines: dict[str, figures.Points] = {}
    for gamma in GAMMAS:
        share, loss = imbalance.cumulative_loss(gamma, positive=False)
        hardest, part = 1 - share[::-1], 1 - loss[::-1]
        used = hardest > 0
        lines[f"gamma {gamma:g}"] = (hardest[used].tolist(), part[used].tolist())
    starts = [x for xs, ys in lines.values() for x, y in zip(xs, ys, strict=True) if y >= FIRST_SHARE]
    low = min(0.1, 10 ** float(np.floor(np.log10(min(starts))))) if starts else 0.1
    levels = np.geomspace(low, 1, POINTS)
    drawn = {
        # Below its first bin, a curve runs straight to zero: the examples of a bin have equal losses.
        name: (levels.tolist(), np.interp(levels, [0.0, *xs], [0.0, *ys]).tolist())
        for name, (xs, ys) in lines.items()
    }
    figure = figures.line_chart(
        drawn, x="share of the examples, hardest first", y="share of the loss (0 to 1)", smooth=False, legend="above"
    )
    axes = figure.axes[0]
    axes.set_xscale("log")
    axes.set_xlim(low, 1)
    axes.set_ylim(0, 1.02)
    lowest = round(float(np.log10(low)))
    exponents = range(0, lowest - 1, -max(1, -(lowest // MOST_TICKS)))
    axes.set_xticks([10.0**e for e in exponents], [f"{10.0 ** (e + 2):.{max(0, -e - 2)}f}%" for e in exponents])
    axes.minorticks_off()
    return figure


def shares_over_time(section: Section, rows: Sequence[summary.Row]) -> None:
    """Add charts of the shares of the loss and of the gradient during training, from the rows of imbalance.csv."""
    for what in ("loss", "gradient"):
        columns = [f"{kind}_{what}" for kind in KINDS]
        complete = [row for row in rows if all(row.get(name) is not None for name in ("step", *columns))]
        if not complete:
            continue
        steps = [float(row["step"] or 0) for row in complete]
        values = {kind: np.array([float(row[f"{kind}_{what}"] or 0) for row in complete]) for kind in KINDS}
        changes = "; ".join(f"{KINDS[kind]} from {ys[0]:.0%} to {ys[-1]:.0%}" for kind, ys in values.items())
        section.figure(
            shares_chart(steps, values, y=f"share of the {what} (0 to 1)"),
            alt=f"Chart of the shares of the classification {what} during training: {changes}.",
            caption=f"Share of each kind of example in the classification {what}, as running mean of the measured "
            "steps. An example is easy if the predicted probability of its true label is at least 0.5.",
        )


def shares_chart(steps: Sequence[float], values: Mapping[str, npt.NDArray[np.float64]], *, y: str) -> Figure:
    """Draw the shares of `KINDS` as stacked areas of their running means, which add up to 1.

    Args:
        steps: optimiser steps.
        values: shares of each kind, by its name in imbalance.csv.
        y: label of the y axis.
    """
    window = max(1, len(steps) // 10)
    smooth = {kind: figures.running_mean(values[kind], window) for kind in AREAS}
    total = np.maximum(np.sum(list(smooth.values()), axis=0), 1e-30)
    areas = {KINDS[kind]: ((smooth[kind] / total).tolist(), *AREAS[kind]) for kind in AREAS}
    return figures.stacked_areas(steps, areas, x="optimiser step", y=y)


def shares_sentence(rows: Sequence[Mapping[str, float | None]]) -> list[str]:
    """Return a sentence on the background's share of loss and gradient in the first and the last tenth of training."""
    complete = [row for row in rows if row.get("hard_negative_loss") is not None]
    if not complete:
        return []

    def background(part: Sequence[Mapping[str, float | None]], what: str) -> float:
        values = [(row[f"easy_negative_{what}"] or 0.0) + (row[f"hard_negative_{what}"] or 0.0) for row in part]
        return sum(values) / len(values)

    tenth = max(1, len(complete) // 10)
    first, last = complete[:tenth], complete[-tenth:]
    return [
        f"Background examples caused {background(first, 'loss'):.0%} of the classification loss at the start of "
        f"training and {background(last, 'loss'):.0%} at the end. The background's share of the gradient was "
        f"{background(first, 'gradient'):.0%} at the start and {background(last, 'gradient'):.0%} at the end."
    ]
