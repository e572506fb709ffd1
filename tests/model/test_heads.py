"""Tests of the heads' initial outputs."""

import pytest
import torch

from retinanet.model import RetinaNet

SMALL = {"backbone": "tf_efficientnet_lite0", "fpn_width": 16, "head_width": 16, "head_depth": 1}


@pytest.mark.parametrize("prior", [0.01, 0.1, 0.5])
def test_initial_probabilities_equal_the_prior(prior):
    model = RetinaNet(num_classes=4, prior=prior, **SMALL)
    p = model(torch.randn(1, 3, 64, 64)).logits_NAK.sigmoid()
    assert p.mean().item() == pytest.approx(prior, rel=0.1)
