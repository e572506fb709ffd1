"""The device double: its values are those of the CPU, its counts those of CUDA, and it refuses what CUDA refuses."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.device_double import DEVICE, Double, double, peak_bytes, to_cpu, to_double

X = torch.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("function", "kernels", "syncs", "transfers"),
    [
        (lambda x: x + 1, 1, 0, 0),
        (lambda x: (x * 2 + x).sum(dim=1), 3, 0, 0),
        (lambda x: x.view(3, 2).T[1:, None].expand(1, 4, 3), 0, 0, 0),
        (lambda x: x.T.reshape(6), 1, 0, 0),
        (lambda x: torch.empty_like(x).shape, 0, 0, 0),
        (lambda x: x.new_zeros(3), 1, 0, 0),
        (lambda x: torch.cat([x, x, x]), 1, 0, 0),
        (lambda x: torch._foreach_mul([x, x], 2), 1, 0, 0),
        (lambda x: torch.where(x > 2, x, 0), 3, 0, 0),  # CUDA fills a tensor with the 0
        (lambda x: x.clone().masked_fill_(x > 2, 7), 3, 0, 0),
        (lambda x: x.clone().clamp_(max=3).add_(x), 3, 0, 0),
        (lambda x: torch.maximum(x, x.flip(1), out=torch.empty_like(x)), 2, 0, 0),
        # Values are read.
        (lambda x: x[1, 1].item(), 1, 1, 1),
        (lambda x: x.tolist(), 1, 1, 1),
        (lambda x: bool(x.sum() > 3), 3, 1, 1),
        (lambda x: torch.equal(x, x), 1, 1, 1),
        (lambda x: x.cpu(), 1, 1, 1),
        (lambda x: x.to("cpu", non_blocking=True), 1, 0, 1),
        # The size of the result depends on values.
        (lambda x: x.nonzero(), 1, 1, 0),
        (lambda x: x[x > 2], 2, 1, 0),
        (lambda x: x.masked_select(x > 2), 2, 1, 0),
        (lambda x: x.unique(), 1, 1, 0),
        (lambda x: torch.bincount(x.long().view(-1)), 2, 1, 0),
        (lambda x: x[0].repeat_interleave(x[0].long()), 3, 1, 0),
        (lambda x: x[0].repeat_interleave(x[0].long(), output_size=3), 3, 0, 0),
        # Values are copied from the CPU.
        (lambda x: x + torch.ones(2, 3).to(x.device), 2, 1, 1),
        (lambda x: x + torch.ones(2, 3).pin_memory().to(x.device, non_blocking=True), 2, 0, 1),
        (lambda x: x.clone().copy_(torch.ones(2, 3)), 2, 1, 1),
        (lambda x: x.clone().copy_(torch.ones(2, 3), non_blocking=True), 2, 0, 1),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), 1, 1, 1),
        (lambda x: torch.as_tensor(np.arange(3), device=x.device), 1, 1, 1),
        (lambda x: x.new_tensor([1.0, 2.0]), 1, 1, 1),
        (lambda x: x[[1, 0]], 2, 1, 1),
        (lambda x: x[:, torch.tensor([2, 0])], 2, 1, 1),
        # A CPU tensor without dimensions is an argument of the kernel, but not of where.
        (lambda x: x * torch.tensor(3.0), 1, 0, 0),
        (lambda x: torch.where(x > 2, x, torch.tensor(3.0)), 3, 1, 1),
    ],
)
def test_values_are_those_of_the_cpu_and_counts_those_of_cuda(function, kernels, syncs, transfers):
    with double() as counts:
        expected = function(X.clone())
        assert (counts.kernels, counts.syncs, counts.transfers) == (0, 0, 0)
        result = function(to_double(X.clone()))
    assert (counts.kernels, counts.syncs, counts.transfers) == (kernels, syncs, transfers), counts
    torch.testing.assert_close(to_cpu(result), expected, rtol=0, atol=0, check_stride=True)


def test_assignment_of_tensors_with_a_mask_waits():
    """Assigning a number, `x[x > 2] = 0`, waits in torch 2.11 and not in torch 2.15. `masked_fill_` never waits."""
    with double() as counts:
        x = to_double(X.clone())
        x.masked_fill_(x > 2, 0)
        assert counts.syncs == 0
        x[x > 1] = torch.ones(1, device=DEVICE)
        assert counts.syncs_by_op == {"index_put_": 1}
        counts.clear()
        assert (counts.kernels, counts.syncs, counts.transfers) == (0, 0, 0)
    assert to_cpu(x).tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + X,
        lambda x: torch.cat([X, x]),
        lambda x: x @ X.T,
        lambda x: X.clone().add_(x),
        lambda x: torch.maximum(x, x, out=torch.empty(2, 3)),
        lambda x: x.gather(0, torch.zeros(1, 3, dtype=torch.int64)),
        lambda x: X[x.long()[0, :1]],
        lambda x: nn.Linear(3, 1)(x),
        lambda x: x + torch.ones(3, requires_grad=True),
    ],
)
def test_operands_of_two_devices_are_an_error(function):
    with double(), pytest.raises(RuntimeError, match="expected all tensors on meta, found"):
        function(to_double(X))


def test_a_meta_tensor_without_values_is_an_error():
    lost = torch.zeros(2, 3, device="meta")
    with double(), pytest.raises(RuntimeError, match="expected tensors with values"):
        to_double(X) + lost


def test_numpy_is_an_error():
    with double(), pytest.raises((RuntimeError, TypeError)):
        np.asarray(to_double(X))


def test_factory_functions_create_doubles_only_on_the_device():
    with double():
        for make in (torch.zeros, torch.ones, torch.rand, torch.empty):
            assert isinstance(make(3, device=DEVICE), Double)
            assert isinstance(make(3, device="meta"), Double)
            assert not isinstance(make(3), Double)
        assert isinstance(torch.arange(3, device=DEVICE), Double)
        assert isinstance(torch.zeros_like(X, device=DEVICE), Double)
        assert isinstance(X.new_zeros(3, device=DEVICE), Double)
        assert isinstance(torch.full((2,), 5.0, device=DEVICE), Double)
        assert torch.ones(3).pin_memory().is_pinned()
        assert not torch.ones(3).is_pinned()


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2))


def test_training_steps_with_clipping_and_ema_equal_those_of_the_cpu():
    images, states = torch.rand(2, 3, 8, 8), []
    for on_double in (False, True):
        network = _network()
        with double() as counts:
            if on_double:
                to_double(network)
            averaged = copy.deepcopy(network).requires_grad_(False)
            optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, foreach=True)
            inputs = to_double(images) if on_double else images
            for _ in range(2):
                counts.clear()
                network(inputs).square().mean().backward()
                nn.utils.clip_grad_norm_(network.parameters(), 0.1)
                optimizer.step()
                optimizer.zero_grad()
                with torch.no_grad():
                    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 0.1)
            assert (counts.kernels > 30, counts.syncs) == (on_double, 0), counts
        states.append((to_cpu(network.state_dict()), to_cpu(averaged.state_dict())))
    for on_cpu, on_device in zip(*states, strict=True):
        assert all(torch.equal(on_cpu[name], on_device[name]) for name in on_cpu)
    assert not torch.equal(states[0][0]["0.weight"], states[0][1]["0.weight"])


def test_a_module_moves_to_the_double_and_back_and_loads_a_state():
    network = _network()
    with double() as counts:
        moved = copy.deepcopy(network).to(DEVICE)
        assert all(isinstance(parameter, Double) for parameter in moved.parameters())
        assert counts.transfers == len(network.state_dict())
        with torch.no_grad():
            moved[0].weight.zero_()
        moved.load_state_dict(network.state_dict())
        assert torch.equal(moved.to("cpu")[0].weight, network[0].weight)


def test_a_shared_parameter_stays_shared():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    network = to_double(nn.Sequential(first, second))
    assert network[0].weight is network[1].weight
    assert len(list(network.parameters())) == 3


def test_peak_bytes_follow_the_lifetimes_of_tensors():
    given = torch.zeros(1000, device="meta")

    def run():
        a = given + 1  # 4,000 bytes
        b = a.view(10, 100)[:2] * 2  # 800 bytes
        del a
        c = torch.cat([given, given])  # 8,000 bytes
        return b, c

    assert peak_bytes(run) == 8800
    assert peak_bytes(lambda: given + (given + 1)) == 8000
    assert peak_bytes(lambda: given.view(10, 100)) == 0
