"""Running average of the weights: hand-worked numbers, and no wait for the device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retinanet.train.running_average import ExponentialAverage
from tests.device_double import DEVICE, double, to_cpu, to_double


def make_network() -> nn.Module:
    network = nn.BatchNorm1d(2)
    with torch.no_grad():
        network.weight.fill_(1.0)
    return network


def set_values(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        network.weight.fill_(value)
        network.running_mean.fill_(value)
        network.num_batches_tracked.add_(1)


def test_hand_worked_average():
    """The first update copies. Update 1 has the decay min(0.9, 2/11), update 2 min(0.9, 3/12) = 1/4.

    Weights 1, 3, 5: average 1, then 1 x 2/11 + 3 x 9/11 = 29/11, then 29/11 x 1/4 + 5 x 3/4 = 97/22 + 0 = 4.409.
    Buffers are copied.
    """
    network = make_network()
    average = ExponentialAverage(network, device=torch.device("cpu"), decay=0.9)
    expected = [1.0, 29 / 11, 29 / 44 + 15 / 4]
    for value, weight in zip((1.0, 3.0, 5.0), expected, strict=True):
        set_values(network, value)
        average.update_parameters(network)
        assert average.module.weight.tolist() == pytest.approx([weight] * 2)
        assert average.module.running_mean.tolist() == [value] * 2
    assert int(average.module.num_batches_tracked) == 3
    assert int(average.n_averaged) == 3


def test_the_decay_has_an_upper_limit():
    network = make_network()
    average = ExponentialAverage(network, device=torch.device("cpu"), decay=0.1)
    average.update_parameters(network)
    set_values(network, 2.0)
    average.update_parameters(network)
    assert average.module.weight.tolist() == pytest.approx([0.1 * 1 + 0.9 * 2] * 2)


def test_an_update_does_not_wait_for_the_device():
    network, on_cpu = make_network(), make_network()
    expected = ExponentialAverage(on_cpu, device=torch.device("cpu"), decay=0.9)
    with double() as counts:
        to_double(network)
        average = ExponentialAverage(network, device=DEVICE, decay=0.9)
        for value in (1.0, 3.0):
            set_values(network, value)
            set_values(on_cpu, value)
            counts.clear()
            average.update_parameters(network)
            expected.update_parameters(on_cpu)
            assert counts.syncs == 0, counts
    assert torch.equal(to_cpu(average.module.weight), expected.module.weight)
    assert int(average.n_averaged) == 2
