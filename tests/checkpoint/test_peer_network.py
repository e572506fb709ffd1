"""Tests of `peer_network`, which builds a RetinaNet from the weights of torchvision or Detectron2."""

import pytest
import torch

from retinanet.checkpoint.import_weights import from_torchvision
from tests.peers import torchvision_v1


@pytest.mark.slow
@torch.no_grad()
def test_outputs_depend_on_the_eps_of_frozen_batchnorm():
    """A channel with variance 1e-5 has the gain 316 with eps 0, and 224 with eps 1e-5."""
    small = torch.rand(1, 3, 64, 96)
    torch.manual_seed(1)
    for eps in (0.0, 1e-5):
        theirs = torchvision_v1(3, backbone="resnet18", eps=eps)
        for module in theirs.modules():
            if hasattr(module, "running_var"):
                module.running_var.uniform_(5e-6, 2e-5)
                module.weight.uniform_(1e-3, 3e-3)
        theirs.eval()
        features = theirs.backbone.body(small)["2"]
        right_eps = from_torchvision(theirs.state_dict(), frozen_eps=eps).backbone(small)[2]
        wrong_eps = from_torchvision(theirs.state_dict(), frozen_eps=1e-5 - eps).backbone(small)[2]
        torch.testing.assert_close(right_eps, features, rtol=1e-4, atol=1e-5 * features.abs().max().item())
        assert (wrong_eps - features).abs().max() > 0.1 * features.abs().max()
