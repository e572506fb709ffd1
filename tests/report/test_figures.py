"""Test the figures: values, axes, few and many lines or classes, no global state."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from matplotlib.text import Text

from retinanet.report import figures


def test_running_mean_of_hand_worked_values() -> None:
    values = np.array([0.0, 3.0, 6.0, 3.0])
    np.testing.assert_allclose(figures.running_mean(values, 3), [1.5, 3, 4, 4.5])
    np.testing.assert_allclose(figures.running_mean(np.array([2.0]), 5), [2.0])


def test_only_long_lines_get_a_running_mean() -> None:
    long = list(range(100)), [float(i % 2) for i in range(100)]
    assert len(figures.line_chart({"a": long}, x="x", y="y").axes[0].lines) == 2
    assert len(figures.line_chart({"a": long}, x="x", y="y", smooth=False).axes[0].lines) == 1
    assert len(figures.line_chart({"a": ([1], [2.0])}, x="x", y="y").axes[0].lines) == 1


def test_a_single_point_is_visible() -> None:
    axes = figures.loss_curves({"total": ([1], [2.0])}).axes[0]
    assert axes.lines[0].get_marker() == "o"
    assert axes.get_xlim() == (0, 2)


def test_losses_with_a_wide_range_get_a_logarithmic_axis() -> None:
    assert figures.loss_curves({"total": ([1, 2], [100.0, 1.0])}).axes[0].get_yscale() == "log"
    assert figures.loss_curves({"total": ([1, 2], [2.0, 1.0])}).axes[0].get_yscale() == "linear"
    assert figures.loss_curves({"total": ([1, 2], [2.0, 0.0])}).axes[0].get_yscale() == "linear"


def test_of_many_classes_those_with_the_lowest_ap_are_drawn() -> None:
    classes = {f"class {i}": (i / 100, i / 100) for i in range(80)}
    axes = figures.class_bars(classes).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"class {i}" for i in range(figures.MAX_BARS)]
    widths = [bar.get_width() for bar in axes.containers[1]]
    np.testing.assert_allclose(widths, [i / 100 for i in range(figures.MAX_BARS)])


@pytest.mark.parametrize("classes", [1, 5, 6, 40])
def test_precision_recall_of_few_and_of_many_classes(classes: int) -> None:
    curve = ([0.0, 0.5, 1.0], [1.0, 0.8, 0.0])
    axes = figures.precision_recall({f"c{i}": curve for i in range(classes)}).axes[0]
    assert len(axes.lines) == (classes if classes <= 5 else classes + 1)
    legend = axes.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ([f"c{i}" for i in range(classes)] if classes <= 5 else ["one class", "mean of the classes"])
    if classes > 5:
        recall, mean = (np.asarray(values, dtype=np.float64) for values in axes.lines[-1].get_data())
        np.testing.assert_allclose(np.interp([0.25, 0.75], recall, mean), [0.9, 0.4], atol=1e-9)


def test_labels_keep_their_distance_and_their_order() -> None:
    assert figures.spread([0.1, 0.5], 0.1) == [0.1, 0.5]
    np.testing.assert_allclose(figures.spread([0.5, 0.5, 0.5], 0.1), [0.5, 0.6, 0.7])
    np.testing.assert_allclose(figures.spread([0.97, 0.98, 0.99], 0.1), [0.75, 0.85, 0.95])
    np.testing.assert_allclose(figures.spread([0.0, 0.0], 0.1), [0.05, 0.15])


def test_stacked_areas_end_at_one_and_are_labelled_directly() -> None:
    areas = {"a": ([0.2, 0.6], figures.SERIES[0], 0.8), "b": ([0.8, 0.4], figures.SERIES[1], 0.3)}
    axes = figures.stacked_areas([0, 10], areas, x="step", y="share").axes[0]
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), [1, 1])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.2, 0.6])
    assert [text.get_text() for text in axes.texts] == ["a", "b"]
    assert axes.get_legend() is None


def test_all_text_has_the_size_that_phones_need() -> None:
    """12 pixels where the report shows a figure 337 pixels wide: in viewBox units of a figure of 72 units per inch."""
    curve = ([0.0, 0.5, 1.0], [1.0, 0.8, 0.0])
    for figure in (
        figures.class_bars({"a": (0.4, 0.6)}),
        figures.loss_curves({"total": ([1, 2], [200.0, 1.0]), "box": ([1, 2], [2.0, 1.0])}),
        figures.line_chart({"a": curve, "b": curve}, x="x", y="y", legend="above"),
        figures.precision_recall({"a": curve, "b": curve}),
        figures.interval_chart([("a label that is much too long for a single row", (0, 1, 2), [1.0])], x="x"),
        figures.stacked_areas([0, 1], {"a": ([1, 1], figures.SERIES[0], 1.0)}, x="x", y="y"),
    ):
        figure.draw_without_rendering()  # sets the labels of the ticks
        scale = 337 / (figure.get_figwidth() * 72)
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert len(texts) > 4
        assert not any("10^" in text.get_text() for text in texts), "exponents are smaller than 12 pixels"
        assert min(text.get_fontsize() * scale for text in texts) >= 12


def test_a_row_label_has_at_most_two_lines() -> None:
    assert figures.row_label("focal") == "focal"
    label = figures.row_label("focal, gamma 2, alpha 0.75, with further words that do not fit")
    assert [len(line) <= 22 for line in label.split("\n")] == [True, True]
    assert label.endswith("…")
    assert figures.row_label("$5") == r"\$5"
    assert figures.row_label("") == ""


def test_axes_have_labels() -> None:
    all_figures = [
        figures.loss_curves({"total": ([1, 2], [2.0, 1.0])}),
        figures.ap_curves({"AP": ([1], [0.5])}),
        figures.learning_rate(([1, 2], [0.1, 0.0])),
        figures.precision_recall({"a": ([0, 1], [1, 0])}),
    ]
    for figure in all_figures:
        assert figure.axes[0].get_xlabel()
        assert figure.axes[0].get_ylabel()


def test_figures_do_not_use_pyplot() -> None:
    figures.ap_curves({"AP": ([1], [0.5])})
    source = sys.modules["retinanet.report.figures"].__dict__
    assert "plt" not in source
    assert "pyplot" not in source
