"""The network behind another library's weights."""

import pytest
import torch

from retinanet.checkpoint.import_weights import from_torchvision
from tests.peers import torchvision_v1


@pytest.mark.slow
@torch.no_grad()
def test_eps_of_frozen_batchnorm():
    """A channel of variance 1e-5 doubles with eps 0: its gain is 316 instead of 224."""
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
        same = from_torchvision(theirs.state_dict(), frozen_eps=eps).backbone(small)[2]
        other = from_torchvision(theirs.state_dict(), frozen_eps=1e-5 - eps).backbone(small)[2]
        torch.testing.assert_close(same, features, rtol=1e-4, atol=1e-5 * features.abs().max().item())
        assert (other - features).abs().max() > 0.1 * features.abs().max()
