"""Draw line charts and bar charts in colours that colour-blind readers can distinguish, on light and dark pages.

Figures use matplotlib's object interface, without windows or global state. All colours come from `CSS_COLOURS`;
`html.svg` replaces these colours by CSS variables of the page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    import numpy.typing as npt

CSS_COLOURS: Final[dict[str, tuple[str, str]]] = {
    "ink": ("#1c2127", "#e6e9ed"),
    "muted": ("#5a6470", "#a3adb8"),
    "line": ("#c9ced5", "#434b55"),
    "series-1": ("#0072b1", "#56b4e9"),
    "series-2": ("#c2560a", "#f0a04b"),
    "series-3": ("#00805e", "#35c79a"),
    "series-4": ("#a8487f", "#e29cc4"),
    "series-5": ("#6b5b00", "#d9c938"),
}
"""Name of a colour -> its value on a light page and on a dark page.

The colours follow the palette of Okabe and Ito. Their contrast with the page is at least 3:1.
"""

INK, MUTED, LINE = (CSS_COLOURS[name][0] for name in ("ink", "muted", "line"))
SERIES: Final = tuple(shades[0] for name, shades in CSS_COLOURS.items() if name.startswith("series"))
FONT_SIZE: Final = 11.5
"""Font size of all text, in units of a figure that is `WIDTH` x 72 units wide. On a phone, 390 pixels wide, a report
shows a figure 337 pixels wide, so that this text has 12 pixels."""
WIDTH: Final = 4.4
"""Width of a figure, inches."""
DASHES: Final = ("-", "--", "-.", ":")
MAX_BARS: Final = 30
"""Maximum number of classes in a bar chart."""
SMOOTH_FROM: Final = 60
"""A line with at least this many points is drawn with its running mean."""

Points = tuple[Sequence[float], Sequence[float]]
"""x values and y values of a line."""


def new_axes(*, x: str, y: str, height: float = 3.1) -> tuple[Figure, Any]:
    """Return an empty figure in the style of the report, and its axes with the labels `x` and `y`."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=INK, fontsize=FONT_SIZE)
    axes.set_ylabel(y, color=INK, fontsize=FONT_SIZE)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=MUTED, labelcolor=INK, labelsize=FONT_SIZE)
    for name, spine in axes.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(MUTED)
    return figure, axes


def add_legend(axes: Any, **where: Any) -> None:
    """Add a legend in the style of the report. `where` holds further arguments of `Axes.legend`."""
    axes.legend(frameon=False, labelcolor=INK, fontsize=FONT_SIZE, **{"handlelength": 1.6, **where})


def _legend_above(figure: Figure, axes: Any, *, columns: int) -> None:
    where: dict[str, Any] = {"loc": "outside upper right", "ncols": columns, "columnspacing": 1.2, "handlelength": 1.6}
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, labelcolor=INK, fontsize=FONT_SIZE, **where)


def line_chart(
    lines: Mapping[str, Points],
    *,
    x: str,
    y: str,
    markers: bool = False,
    smooth: bool = True,
    legend: Literal["inside", "above"] = "inside",
) -> Figure:
    """Draw a line for each name.

    Args:
        lines: points of each line, by name.
        x: label of the x axis, with its unit.
        y: label of the y axis, with its unit.
        markers: whether to mark each point.
        smooth: whether a line of at least `SMOOTH_FROM` points is drawn faint with its running mean on top.
        legend: place of the names: where they cover few lines, or above the axes.
    """
    figure, axes = new_axes(x=x, y=y)
    for number, (name, (xs, raw)) in enumerate(lines.items()):
        ys = np.asarray(raw, dtype=np.float64)
        style: dict[str, Any] = {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number % len(DASHES)]}
        if markers or len(xs) == 1:  # a line with a single point is invisible without a marker
            style |= {"marker": "os^Dv"[number % 5], "markersize": 4}
        if smooth and len(xs) >= SMOOTH_FROM:
            axes.plot(xs, ys, color=style["color"], alpha=0.25, linewidth=0.8)
            ys = running_mean(ys, max(5, len(ys) // 25))
        axes.plot(xs, ys, label=name, linewidth=1.7, **style)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    x_values = {value for xs, _ in lines.values() for value in xs}
    if len(x_values) == 1:
        axes.set_xlim(min(x_values) - 1, min(x_values) + 1)
    if len(lines) > 1 and legend == "inside":
        add_legend(axes)
    elif len(lines) > 1:
        _legend_above(figure, axes, columns=3)
    return figure


def running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Return, for each value, the mean of the `window` values around it. At the ends, the mean covers fewer values."""
    kernel = np.ones(min(window, len(values)))
    result: npt.NDArray[np.float64] = np.convolve(values, kernel, "same") / np.convolve(
        np.ones(len(values)), kernel, "same"
    )
    return result


def loss_curves(losses: Mapping[str, Points], *, x: str = "optimiser step") -> Figure:
    """Draw losses over steps or epochs. The y axis is logarithmic if the losses span more than a factor of 30.

    Args:
        losses: points of each line, by name.
        x: label of the x axis.
    """
    values = [y for _, ys in losses.values() for y in ys if np.isfinite(y)]
    log = bool(values) and min(values) > 0 and max(values) / min(values) > 30
    by_epoch = x == "epoch"
    figure = line_chart(losses, x=x, y="loss per positive anchor", markers=by_epoch, smooth=not by_epoch)
    if log:
        set_log_scale(figure.axes[0], "y")
    return figure


def set_log_scale(axes: Any, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers as labels: exponents would be too small to read."""
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.set_minor_formatter(lambda value, _: "")


def ap_curves(scores: Mapping[str, Points]) -> Figure:
    """Draw AP, AP50 and AP75 over epochs."""
    figure = line_chart(scores, x="epoch", y="average precision (0 to 1)", markers=True, smooth=False)
    figure.axes[0].set_ylim(0, 1.02)
    return figure


def learning_rate(points: Points) -> Figure:
    """Draw the learning rate over optimiser steps."""
    figure = line_chart({"learning rate": points}, x="optimiser step", y="learning rate", smooth=False)
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[0].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    figure.axes[0].yaxis.offsetText.set_color(INK)
    return figure


def class_bars(classes: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw AP and AP50 of each class, highest AP on top. At most `MAX_BARS` classes, with the lowest AP, are drawn.

    Args:
        classes: (AP, AP50) by class name, both from 0 to 1.
    """
    chosen = sorted(classes.items(), key=lambda item: item[1][0])[:MAX_BARS]
    figure, axes = new_axes(x="average precision (0 to 1)", y="", height=max(1.6, 0.7 + 0.28 * len(chosen)))
    rows = np.arange(len(chosen))
    for number, (label, offset) in enumerate((("AP50", 0.2), ("AP", -0.2))):
        values = [scores[1 - number] for _, scores in chosen]
        axes.barh(rows + offset, values, height=0.36, color=SERIES[1 - number], label=label)
    # matplotlib would set text between two "$" as a formula.
    axes.set_yticks(rows, [shorten(name).replace("$", r"\$") for name, _ in chosen])
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.6, len(chosen) - 0.4)
    axes.grid(visible=False, axis="y")
    _legend_above(figure, axes, columns=2)
    return figure


def precision_recall(curves: Mapping[str, Points]) -> Figure:
    """Draw precision over recall. Up to five classes are named; more classes are drawn in grey, with their mean.

    Args:
        curves: (recall, precision) by class name, all from 0 to 1.
    """
    figure, axes = new_axes(x="recall (0 to 1)", y="precision (0 to 1)")
    few = len(curves) <= len(SERIES)
    for number, (name, (recall, precision)) in enumerate(curves.items()):
        if few:
            label = shorten(name).replace("$", r"\$")
            axes.plot(recall, precision, color=SERIES[number], linestyle=DASHES[number % 4], label=label, linewidth=1.7)
        else:
            axes.plot(
                recall, precision, color=MUTED, alpha=0.45, linewidth=0.8, label="one class" if not number else None
            )
    if not few:
        levels = np.linspace(0, 1, 101)
        mean = np.mean([np.interp(levels, r, p, right=0) for r, p in curves.values()], axis=0)
        axes.plot(levels, mean, color=SERIES[0], linewidth=2.2, label="mean of the classes")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    add_legend(axes, loc="lower left")
    return figure


def shorten(name: str, length: int = 22) -> str:
    """Return the name, cut to `length` characters with an ellipsis if it is longer."""
    return name if len(name) <= length else name[: length - 1] + "…"


def row_label(text: str) -> str:
    """Return the label of a row of a chart: at most two lines of `shorten`'s length."""
    first, *others = textwrap.wrap(text, 22, break_on_hyphens=False) or [""]
    lines = [first, shorten(" ".join(others))] if others else [first]
    return "\n".join(lines).replace("$", r"\$")


def stacked_areas(
    xs: Sequence[float], areas: Mapping[str, tuple[Sequence[float], str, float]], *, x: str, y: str
) -> Figure:
    """Draw values that add up to 1 as areas, the first at the bottom, each with its name beside its right end.

    Args:
        xs: x values.
        areas: values, colour and opacity of each area, by name.
        x: label of the x axis, with its unit.
        y: label of the y axis, with its unit.
    """
    figure, axes = new_axes(x=x, y=y)
    tops = np.cumsum([values for values, _, _ in areas.values()], axis=0)
    bottoms = np.vstack([np.zeros(len(xs)), tops[:-1]])
    for (name, (_, colour, opacity)), low, high in zip(areas.items(), bottoms, tops, strict=True):
        axes.fill_between(xs, low, high, color=colour, alpha=opacity, linewidth=0, label=name)
        axes.plot(xs, high, color=INK, linewidth=0.8)
    ends = (tops[:, -1] + bottoms[:, -1]) / 2
    for (name, (_, colour, _)), end, place in zip(areas.items(), ends, spread(ends, 0.09), strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
        # The text is in ink colour, because the colours have too little contrast for text.
        where = {"xycoords": ("axes fraction", "data"), "textcoords": ("axes fraction", "data"), "arrowprops": line}
        axes.annotate(name, (1, end), (1.05, place), va="center", color=INK, fontsize=FONT_SIZE, **where)
    axes.set_ylim(0, 1)
    axes.set_xlim(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    return figure


def spread(values: Sequence[float] | npt.NDArray[np.float64], gap: float) -> list[float]:
    """Return positions near rising values in [0, 1] that are at least `gap` apart, for labels. They may exceed 1."""
    places: list[float] = []
    for value in values:
        places.append(max(float(value), places[-1] + gap if places else gap / 2))
    limit = 1 - gap / 2
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    return places


def interval_chart(rows: Sequence[tuple[str, tuple[float, float, float], Sequence[float]]], *, x: str) -> Figure:
    """Draw an interval in each row, the first row on top, and a vertical line at 0.

    Args:
        rows: label, (low, mean, high), and single values, which become small dots.
        x: label of the horizontal axis.
    """
    figure, axes = new_axes(x=x, y="", height=max(1.6, 0.8 + 0.45 * len(rows)))
    for row, (_, (low, mean, high), values) in enumerate(reversed(rows)):
        axes.plot([low, high], [row, row], color=SERIES[0], linewidth=1.7)
        axes.plot(values, [row] * len(values), ".", color=MUTED, markersize=5)
        axes.plot([mean], [row], "o", color=SERIES[0], markersize=6)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle=":")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.set_yticks(range(len(rows)), [row_label(label) for label, *_ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(visible=False, axis="y")
    return figure
