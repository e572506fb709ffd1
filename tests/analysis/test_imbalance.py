"""The histogram of logits, the losses of its bins, and the JSON document."""

import math

import pytest
import torch

from retinanet.analysis.imbalance import bin_losses
from retinanet.analysis.imbalance_meter import ImbalanceMeter, histogram
from retinanet.config import LossConfig


def test_logits_beyond_the_range_count_in_the_outermost_bins():
    counts = histogram(torch.tensor([-30.0, -29.995, -0.005, 0.005, 29.999, 40.0]))
    assert counts.sum() == 6
    assert counts[0] == 2
    assert counts[2999] == counts[3000] == 1
    assert counts[-1] == 2
    assert bin_losses(0.0)[3000] == pytest.approx(math.log(2), rel=0.01)


def test_json_has_the_former_field_names():
    document = ImbalanceMeter(classes=("a",), loss_config=LossConfig()).result().to_json()
    assert document["images"] == document["pictures"] == 0
    assert set(document["anchors_per_image"]) == {"positive", "ignored", "negative"}
    assert document["anchors_per_image"] == document["anchors_per_picture"]
    assert document["effective_negatives_per_image"] == document["effective_negatives_per_picture"] == 0
