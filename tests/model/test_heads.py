"""Tests of the heads' initial outputs."""

import pytest
import torch

from retinanet.model import RetinaNet, rescale_logits

SMALL = {"backbone": "tf_efficientnet_lite0", "fpn_width": 16, "head_width": 16, "head_depth": 1}


@pytest.mark.parametrize("prior", [0.01, 0.1, 0.5])
def test_initial_probabilities_equal_the_prior(prior):
    model = RetinaNet(num_classes=4, prior=prior, **SMALL)
    p = model(torch.randn(1, 3, 64, 64)).logits_NAK.sigmoid()
    assert p.mean().item() == pytest.approx(prior, rel=0.1)


def test_rescaled_logits_of_each_class():
    """The logit z of class k becomes factor_k z + shift_k, at every anchor of every level."""
    torch.manual_seed(0)
    model = RetinaNet(num_classes=3, **SMALL).eval()
    torch.nn.init.normal_(model.class_head.output.weight)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(images)
        rescale_logits(model.class_head, [2.0, 1.0, 0.5], [-1.0, 0.0, 3.0])
        after = model(images)
    expected = before.logits_NAK * torch.tensor([2.0, 1.0, 0.5]) + torch.tensor([-1.0, 0.0, 3.0])
    torch.testing.assert_close(after.logits_NAK, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(after.deltas_NA4, before.deltas_NA4)
    with pytest.raises(ValueError, match="expected 3 factors and shifts, found 2 and 3"):
        rescale_logits(model.class_head, [1.0, 1.0], [0.0] * 3)
