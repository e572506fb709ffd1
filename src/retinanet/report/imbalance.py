"""The class imbalance on a page: shares of the loss, the paper's figure 4, and how the shares went while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.imbalance import GAMMAS, SIZES
from retinanet.report import figures, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retinanet.analysis.imbalance import Imbalance
    from retinanet.report.html import Report, Section

KINDS: Final = {
    "hard_positive": "hard objects",
    "easy_positive": "easy objects",
    "hard_negative": "hard background",
    "easy_negative": "easy background",
}
POINTS: Final = 400
"""Of a drawn curve: more cannot be seen."""


def imbalance_section(report: Report, found: Imbalance) -> None:
    """Add what `analysis.imbalance` measured on a trained network, with figure 4."""
    section = report.section("Class imbalance: where the loss comes from")
    for sentence in found.sentences():
        section.text(sentence)
    shares_SE, gradients_SE = found.loss_shares_SE, found.gradient_shares_SE
    kinds = [("objects", 0), ("background", 1)]
    section.table(
        ["Examples", "Number", "Loss", "Gradient"],
        [
            (f"{ease} {name}", int(found.examples_SE[s, e]), float(shares_SE[s, e]), float(gradients_SE[s, e]))
            for name, s in kinds
            for ease, e in (("easy", 0), ("hard", 1))
        ],
        caption="Shares of loss and gradient. An example is one class at one anchor. It is easy where its own answer "
        f"has a probability of {found.easy_from:g} or more.",
    )
    figure_four(section, found)
    total = max(float(found.loss_SE.sum()), 1e-30)
    section.table(
        ["Class", "Positives", "Objects", "Background"],
        [
            (name, int(found.class_positives_K[k]), *(float(v) / total for v in found.class_loss_KS[k]))
            for k, name in enumerate(found.classes)
        ],
        caption="By class: positive anchors, and what share of the whole loss its objects and its background make.",
    )
    section.table(
        ["Level", "Positives", "Objects", "Background"],
        [
            (
                f"P{level}",
                int(found.level_positives_L[i]),
                *(float(v) / total for v in found.level_loss_LS[i]),
            )
            for i, level in enumerate(found.levels)
        ],
        caption="The same by level of the pyramid.",
    )
    if found.size_positives.sum():
        section.table(
            ["Size", "Positives", "Share", "Loss"],
            [
                (
                    name,
                    int(found.size_positives[i]),
                    float(found.size_positives[i] / found.size_positives.sum()),
                    float(found.size_loss[i] / max(found.size_loss.sum(), 1e-30)),
                )
                for i, name in enumerate(SIZES)
            ],
            caption="Objects by COCO's sizes (small below 32², large from 96² square pixels): which share of the "
            "positive anchors they have, and which share of the loss.",
        )


def figure_four(section: Section, found: Imbalance) -> None:
    """Add the cumulative loss over objects and over background for several gammas (the paper's figure 4)."""
    for positive, name in ((True, "objects"), (False, "background")):
        hardest = ", ".join(
            f"{found.hardest_share(gamma, 0.05, positive=positive):.0%} at gamma {gamma:g}" for gamma in GAMMAS
        )
        section.figure(
            cumulative_chart(found, positive=positive),
            alt=f"Share of the loss of the {name} over the share of examples, easiest first. "
            f"The hardest twentieth makes up {hardest}.",
            caption=f"Figure 4 of the paper, on this model and data: the {name}, sorted from the easiest to the "
            "hardest example, and the share of the focal loss that they add up to. A curve along the diagonal: all "
            f"weigh alike. A curve in the lower right corner: few hard ones decide. The hardest 5 % make up {hardest}.",
        )


def cumulative_chart(found: Imbalance, *, positive: bool) -> Figure:
    """Draw one half of figure 4."""
    lines = {}
    for gamma in GAMMAS:
        share, loss = found.cumulative_loss(gamma, positive=positive)
        # The steep end is where the curves differ, so points are chosen along both axes.
        levels = np.unique(
            np.concatenate([np.linspace(0, 1, POINTS), np.interp(np.linspace(0, 1, POINTS), loss, share)])
        )
        lines[f"gamma {gamma:g}"] = (levels.tolist(), np.interp(levels, share, loss).tolist())
    figure = figures.line_chart(
        lines, x="share of the examples, easiest first", y="share of the loss (0 to 1)", smooth=False
    )
    figure.axes[0].set_xlim(0, 1.005)
    figure.axes[0].set_ylim(0, 1.02)
    figure.axes[0].set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    return figure


def shares_over_time(section: Section, rows: Sequence[summary.Row]) -> None:
    """Add how the shares of the loss and of the gradient went while training, from the rows of imbalance.csv."""
    for what in ("loss", "gradient"):
        lines = {name: summary.points(rows, "step", f"{kind}_{what}") for kind, name in KINDS.items()}
        lines = {name: line for name, line in lines.items() if line[0]}
        if not lines:
            continue
        said = "; ".join(f"{name} from {ys[0]:.0%} to {ys[-1]:.0%}" for name, (_, ys) in lines.items())
        figure = figures.line_chart(lines, x="optimiser step", y=f"share of the {what} (0 to 1)")
        figure.axes[0].set_ylim(0, 1.02)
        section.figure(
            figure,
            alt=f"Line chart of the shares of the classification {what} over time: {said}.",
            caption=f"Which examples the classification {what} came from. Easy: their own answer had a probability of "
            "0.5 or more.",
        )


def shares_sentence(rows: Sequence[Mapping[str, float | None]]) -> list[str]:
    """Return where the loss came from at the start and at the end of a training, in words."""
    kept = [row for row in rows if row.get("hard_negative_loss") is not None]
    if not kept:
        return []

    def background(part: Sequence[Mapping[str, float | None]], what: str) -> float:
        values = [(row[f"easy_negative_{what}"] or 0.0) + (row[f"hard_negative_{what}"] or 0.0) for row in part]
        return sum(values) / len(values)

    tenth = max(1, len(kept) // 10)
    first, last = kept[:tenth], kept[-tenth:]
    return [
        f"The background made {background(first, 'loss'):.0%} of the classification loss at the start and "
        f"{background(last, 'loss'):.0%} at the end; of the gradient {background(first, 'gradient'):.0%} and "
        f"{background(last, 'gradient'):.0%}."
    ]
