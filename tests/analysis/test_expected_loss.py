"""Expected loss of the first step: the paper's setting by hand, and a real first step."""

import json
import math

import pytest

from retinanet.analysis.expected_loss import ExpectedLoss, expected_loss, explain
from retinanet.config import LossConfig
from retinanet.train import fit


@pytest.mark.parametrize(
    ("loss", "prior", "expected"),
    [("ce", 0.01, 3242), ("focal", 0.01, 0.243), ("ce", 0.5, 223_582), ("focal", 0.5, 41_922)],
)
def test_the_paper_setting(loss, prior, expected):
    """201,600 background anchors x 80 classes over 50 positives; CE(0.01) = 0.01005, focal x 0.75 x 1e-4."""
    result = expected_loss(
        positives=50, negatives=201_600, num_classes=80, prior=prior, loss_config=LossConfig(loss=loss, alpha=0.25)
    )
    extra = 50 * 79 / (201_600 * 80)  # positive anchors are background examples of the other classes
    assert result.background / (1 + extra) == pytest.approx(expected, rel=2e-3)


def test_objects_by_hand():
    """10 positives, 1 class, p = 0.01: each loss is -log 0.01 = 4.605; alpha-balanced with alpha 0.75 it is 3.454.

    Weighted cross-entropy of 1,000 negatives: 0.5 x 1,000 x 0.01005 / 10 = 0.5025.
    """
    for loss, value in (("ce", 4.60517), ("balanced_ce", 0.75 * 4.60517)):
        config = LossConfig(loss=loss)
        result = expected_loss(positives=10, negatives=1000, num_classes=1, prior=0.01, loss_config=config)
        assert result.foreground == pytest.approx(value, rel=1e-5)
    weighted = LossConfig(loss="weighted")
    result = expected_loss(positives=10, negatives=1000, num_classes=1, prior=0.01, loss_config=weighted)
    assert result.background == pytest.approx(0.5 * 1000 * -math.log(0.99) / 10)
    for other in ("ohem", "hard_negative_mining", "quality_focal", "varifocal", "ghm_c"):
        config = LossConfig(loss=other)
        assert expected_loss(positives=1, negatives=9, num_classes=1, prior=0.01, loss_config=config) is None


def test_expected_loss_without_positives_and_with_class_alphas():
    none = expected_loss(positives=0, negatives=100, num_classes=2, prior=0.01, loss_config=LossConfig())
    assert none.foreground == 0
    assert none.background > 0
    config = LossConfig(class_alpha=(0.2, 0.8))
    per_class = expected_loss(positives=4, negatives=100, num_classes=2, prior=0.01, loss_config=config)
    single = expected_loss(positives=4, negatives=100, num_classes=2, prior=0.01, loss_config=LossConfig(alpha=0.5))
    assert per_class.total == pytest.approx(single.total)


def explanation(prior, measured, background=1.0, foreground=3.0):
    config = LossConfig()
    numbers = {"positives": 10, "negatives": 1000, "loss_config": config}
    return explain(ExpectedLoss(background=background, foreground=foreground, prior=prior, **numbers), measured)


def test_the_explanation_has_the_cause():
    assert "they agree" in explanation(0.01, 4.1)
    assert "already trained" in explanation(0.01, 0.4)
    assert "do not start at the prior" in explanation(0.01, 40.0)
    without_prior = explanation(0.5, 40_000.0, background=40_000.0, foreground=0.1)
    assert "they agree" in without_prior
    assert "use --prior 0.01" in without_prior


@pytest.mark.parametrize(
    ("loss", "prior"),
    [
        ("focal", 0.01),
        ("ce", 0.5),
        ("eql_v2", 0.01),
        *(
            pytest.param(*setting, marks=pytest.mark.slow)
            for setting in (("focal", 0.5), ("ce", 0.01), ("weighted", 0.01), ("weighted", 0.5))
        ),
    ],
)
def test_the_first_training_step_has_the_expected_loss(tiny, loss, prior):
    fit(**tiny, loss=loss, prior=prior, epochs=1, max_steps=1)
    start = json.loads((tiny["output"] / "start.json").read_text())
    assert start["found"] == pytest.approx(start["expected"], rel=0.25)
    assert "they agree" in start["said"]
