"""Findings about the anchors and the start of training: a broken set-up for each."""

import pytest

from retinanet.analysis.anchor_findings import anchor_findings, start_findings
from retinanet.analysis.coverage import coverage
from retinanet.analysis.expected_loss import expected_loss
from retinanet.config import ImageConfig, LossConfig, MatchConfig, ModelConfig
from tests.analysis.made import made_data, scattered
from tests.analysis.made_findings import kinds, only


@pytest.mark.parametrize(
    ("sides", "ratio", "sizes", "kind"),
    [
        ((10, 18), (0.9, 1.1), (64, 128, 256, 512, 1024), "anchors too large"),
        ((250, 300), (0.9, 1.1), (8, 16, 24, 32, 40), "anchors too small"),
        ((60, 100), (8.0, 9.0), (32, 64, 128, 256, 512), "anchors of other shapes"),
    ],
)
def test_anchors_that_miss_name_the_direction(sides, ratio, sizes, kind):
    data = scattered(100, sides=sides, ratio=ratio)
    config = ModelConfig(anchor_sizes=tuple(map(float, sizes)))
    found = coverage(data, model_config=config, match_config=MatchConfig(), image_config=ImageConfig(image_size=384))
    assert only(anchor_findings(found, config), kind).severity == "warning"


def test_objects_on_top_of_each_other():
    """Two objects of the same box: all anchors go to the first."""
    pairs = [[(0, 100, 100, 164, 164), (1, 100, 100, 164, 164)] for _ in range(20)]
    data = made_data(pairs)
    config = ModelConfig(anchor_scales=(1.0,), anchor_ratios=(1.0,))
    found = coverage(data, model_config=config, match_config=MatchConfig(), image_config=ImageConfig(image_size=384))
    assert found.unreached == 20
    assert only(anchor_findings(found, config), "objects too close")


def test_tiny_objects():
    data = scattered(100, sides=(3, 6))
    found = coverage(
        data, model_config=ModelConfig(), match_config=MatchConfig(), image_config=ImageConfig(image_size=384)
    )
    assert "tiny objects" in kinds(anchor_findings(found, ModelConfig()))


def test_no_prior():
    numbers = {"positives": 50, "negatives": 200_000, "num_classes": 80, "loss_config": LossConfig()}
    assert start_findings(0.01, expected_loss(prior=0.01, **numbers)) == []
    assert "may diverge" in only(start_findings(0.5, expected_loss(prior=0.5, **numbers)), "no prior").advice
    assert only(start_findings(0.5, None), "no prior"), "whatever the loss"
