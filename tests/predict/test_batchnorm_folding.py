"""BatchNorm and activations are folded into the convolution before them."""

import pytest
import torch
from torch import nn

from retinanet.ops.convolution import PreparedConvolution
from retinanet.predict.batchnorm_folding import fold_batchnorm, join_activations


def test_folding_a_convolution_and_batchnorm_computed_by_hand():
    """The convolution is y = 3 x + 1. BatchNorm is 10 (y - 2) / sqrt(4) + 5 = 15 x. ReLU follows."""
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        for parameter, value in ((convolution.weight, 3), (convolution.bias, 1), (norm.weight, 10), (norm.bias, 5)):
            parameter.fill_(value)
        norm.running_mean.fill_(2)
        norm.running_var.fill_(4)
    body = nn.Sequential(convolution, norm, nn.ReLU()).eval()
    folded = fold_batchnorm(body)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        output = folded(torch.tensor([[[[-2.0, 1.0], [2.0, 0.0]]]]))
    assert output.flatten().tolist() == pytest.approx([0, 15, 30, 0], abs=1e-5)
    assert convolution.weight.item() == 3, "the given network does not change"


class Branches(nn.Module):
    """A network that torch.fx cannot trace, because its control flow depends on its input."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_returned_unchanged():
    body = Branches()
    assert fold_batchnorm(body) is body


def test_activations_are_folded_into_the_convolution_before_them():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1)]
    x_N2HW = torch.randn(1, 2, 6, 7).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = nn.Sequential(*layers)(x_N2HW)
        joined = join_activations(layers, shapes=1)
        assert [type(layer) for layer in joined] == [PreparedConvolution] * 2
        torch.testing.assert_close(joined(x_N2HW), expected, atol=1e-5, rtol=1e-5)
