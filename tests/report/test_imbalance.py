"""The figures of the imbalance: figure 4 with both axes, and the shares during training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinanet.analysis.imbalance import GAMMAS, Imbalance
from retinanet.analysis.imbalance_meter import ImbalanceMeter
from retinanet.config import LossConfig
from retinanet.losses import sigmoid_focal_loss
from retinanet.report import Report
from retinanet.report.imbalance import MAX_CLASSES, hardest_chart, imbalance_section, shares_chart, shares_over_time
from tests.analysis.test_imbalance_meter import batch_with
from tests.report.test_html import Page

LOGITS = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)) * 2 - 6


@pytest.fixture(scope="module")
def imbalance() -> Imbalance:
    outputs, targets, image = batch_with(LOGITS, [False] * len(LOGITS))
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig())
    meter.add(outputs, targets, [image])
    return meter.result()


def test_the_background_curve_has_the_share_of_the_hardest_examples(imbalance: Imbalance) -> None:
    axes = hardest_chart(imbalance).axes[0]
    assert axes.get_xscale() == "log"
    assert len(axes.lines) == len(GAMMAS)
    for line, gamma in zip(axes.lines, GAMMAS, strict=True):
        assert line.get_label() == f"gamma {gamma:g}"
        xs, ys = (np.asarray(values, dtype=np.float64) for values in line.get_data())
        losses = sigmoid_focal_loss(LOGITS, torch.zeros_like(LOGITS), alpha=-1, gamma=gamma).double().flatten()
        hardest = losses.sort(descending=True).values.cumsum(0) / losses.sum()
        for count in (20, 200, 2000):
            assert np.interp(count / len(LOGITS), xs, ys) == pytest.approx(float(hardest[count - 1]), abs=0.02)
        assert ys[-1] == pytest.approx(1)


def test_the_axis_starts_where_the_first_curve_starts(imbalance: Imbalance) -> None:
    axes = hardest_chart(imbalance).axes[0]
    low, high = axes.get_xlim()
    assert high == 1
    assert low >= 1 / len(LOGITS) / 10
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "100%"
    assert len(labels) <= 5


def test_figure_four_of_an_empty_measurement() -> None:
    report = Report(title="t")
    imbalance_section(report, ImbalanceMeter(classes=("a",), loss_config=LossConfig()).result())
    assert "Figure 4" in Page(report.html()).text


def test_of_many_classes_those_with_the_largest_loss_are_listed() -> None:
    K = MAX_CLASSES + 10
    logits = torch.full((5, K), -9.0)
    logits[:, 3:6] = 2.0
    outputs, targets, image = batch_with(logits, [False] * 5)
    meter = ImbalanceMeter(classes=[f"class-{k}." for k in range(K)], levels=(3,), loss_config=LossConfig())
    meter.add(outputs, targets, [image])
    report = Report(title="t")
    imbalance_section(report, meter.result())
    text = Page(report.html()).text
    assert text.count("class-") == MAX_CLASSES
    assert all(f"class-{k}." in text for k in (3, 4, 5))
    assert f"Only the {MAX_CLASSES} classes" in text


def test_shares_of_running_means_add_up_to_one() -> None:
    rng = np.random.default_rng(0)
    raw = rng.random((4, 200))
    names = ("hard_positive", "easy_positive", "hard_negative", "easy_negative")
    values = dict(zip(names, raw / raw.sum(axis=0), strict=True))
    axes = shares_chart(list(range(200)), values, y="share").axes[0]
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), 1)
    bottom = np.asarray(axes.lines[0].get_ydata())
    assert np.diff(bottom).std() < np.diff(values["hard_positive"]).std() / 4, "the areas are smoothed"
    assert [text.get_text() for text in axes.texts] == [
        "hard objects",
        "easy objects",
        "hard background",
        "easy background",
    ]


def test_incomplete_rows_are_left_out() -> None:
    section = Report(title="t").section("s")
    kinds = ("hard_positive", "easy_positive", "hard_negative", "easy_negative")
    row = {"step": 0.0, **{f"{kind}_loss": 0.25 for kind in kinds}}
    shares_over_time(section, [row, {"step": 1.0, "hard_positive_loss": 1.0}])
    (block,) = section.blocks
    assert "hard objects from 25% to 25%" in block.markup
