"""Findings about anchors and prior: one faulty configuration for each finding."""

import pytest

from retinanet.analysis.anchor_findings import anchor_findings, start_findings
from retinanet.analysis.coverage import coverage
from retinanet.analysis.expected_loss import expected_loss
from retinanet.config import ImageConfig, LossConfig, MatchConfig, ModelConfig
from tests.analysis.datasets import dataset_from_boxes, random_dataset
from tests.analysis.findings import finding_kinds, finding_of_kind


@pytest.mark.parametrize(
    ("sides", "ratio", "sizes", "kind"),
    [
        ((10, 18), (0.9, 1.1), (64, 128, 256, 512, 1024), "anchors too large"),
        ((250, 300), (0.9, 1.1), (8, 16, 24, 32, 40), "anchors too small"),
        ((60, 100), (8.0, 9.0), (32, 64, 128, 256, 512), "anchors of other shapes"),
    ],
)
def test_missing_anchors_report_the_cause(sides, ratio, sizes, kind):
    data = random_dataset(100, sides=sides, ratio=ratio)
    config = ModelConfig(anchor_sizes=tuple(map(float, sizes)))
    measured = coverage(data, model_config=config, match_config=MatchConfig(), image_config=ImageConfig(image_size=384))
    assert finding_of_kind(anchor_findings(measured, config), kind).severity == "warning"


def test_overlapping_objects_are_too_close():
    """Two objects with the same box: the assigner matches all anchors with the first object."""
    pairs = [[(0, 100, 100, 164, 164), (1, 100, 100, 164, 164)] for _ in range(20)]
    data = dataset_from_boxes(pairs)
    config = ModelConfig(anchor_scales=(1.0,), anchor_ratios=(1.0,))
    measured = coverage(data, model_config=config, match_config=MatchConfig(), image_config=ImageConfig(image_size=384))
    assert measured.unreached == 20
    assert finding_of_kind(anchor_findings(measured, config), "objects too close")


def test_tiny_objects():
    data = random_dataset(100, sides=(3, 6))
    measured = coverage(
        data, model_config=ModelConfig(), match_config=MatchConfig(), image_config=ImageConfig(image_size=384)
    )
    assert "tiny objects" in finding_kinds(anchor_findings(measured, ModelConfig()))


def test_a_high_prior_is_reported():
    numbers = {"positives": 50, "negatives": 200_000, "num_classes": 80, "loss_config": LossConfig()}
    assert start_findings(0.01, expected_loss(prior=0.01, **numbers)) == []
    assert "may diverge" in finding_of_kind(start_findings(0.5, expected_loss(prior=0.5, **numbers)), "no prior").cause
    assert finding_of_kind(start_findings(0.5, None), "no prior"), "no expected loss"
