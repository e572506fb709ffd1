"""Prepared convolutions in each form, with addition and activation, against torch in float64."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retinanet.ops import convolution as ops
from retinanet.ops.convolution import (
    PreparedConvolution,
    onednn_works,
    prepare_convolution,
    supports_activation,
    supports_convolution,
)
from retinanet.ops.winograd import tiles_of

OPERATORS = ("_convolution_pointwise", "_convolution_pointwise_", "_reorder_convolution_weight")


@pytest.fixture
def uncached():
    """Forget whether oneDNN works before and after a test; the result is otherwise cached for the process."""
    ops._onednn_is_right.cache_clear()
    yield
    ops._onednn_is_right.cache_clear()


class OperatorsWithout:
    """torch.ops.mkldnn without one operator, or with a replacement of this operator."""

    def __init__(self, operators, name, replacement=None):
        self._operators, self._name, self._replacement = operators, name, replacement

    def __getattr__(self, name):
        if name != self._name:
            return getattr(self._operators, name)
        if self._replacement is None:
            raise AttributeError(f"'mkldnn' object has no attribute '{name}'")
        return self._replacement


def replace_operator(monkeypatch, name, replacement=None):
    monkeypatch.setattr(torch.ops, "mkldnn", OperatorsWithout(torch.ops.mkldnn, name, replacement))


@pytest.fixture(params=["fastest", "plain torch"])
def form(request, monkeypatch, uncached):
    """Run a test with the fastest form of this machine (Winograd or oneDNN), and with plain torch."""
    if request.param == "plain torch":
        replace_operator(monkeypatch, OPERATORS[0])
        monkeypatch.setattr(ops, "supports_winograd", lambda _: False)
    return request.param


def convolution(channels=32, out=48, kernel=3, seed=0, **options):
    rng = torch.Generator().manual_seed(seed)
    module = nn.Conv2d(channels, out, kernel, **options).requires_grad_(False)
    module.weight.copy_(torch.randn(module.weight.shape, generator=rng) / module.weight[0].numel() ** 0.5)
    if module.bias is not None:
        module.bias.copy_(torch.randn(module.bias.shape, generator=rng))
    return module


def maps(*shape, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng).to(memory_format=torch.channels_last)


def exact(module, activation, x, added=None):
    settings = (module.stride, module.padding, module.dilation, module.groups)
    y = F.conv2d(x.double(), module.weight.double(), None if module.bias is None else module.bias.double(), *settings)
    y = y if added is None else y + added.double()
    return y if activation is None else activation(y)


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6()])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "bias": False},
        {"kernel": 1},
        {"padding": 1, "stride": 2},
        {"padding": 2, "dilation": 2},
        {"padding": 1, "groups": 16},
        {"kernel": (3, 5), "padding": (0, 2)},
    ],
)
def test_outputs_equal_torch_in_float64(form, options, activation):
    module = convolution(**options)
    prepared = prepare_convolution(module, activation)
    for N, H, W in ((1, 16, 18), (2, 7, 5), (1, 16, 18)):
        x = maps(N, 32, H, W)
        expected = exact(module, activation, x)
        assert (prepared(x) - expected).abs().max() < 1e-5
        added = maps(*expected.shape, seed=2)
        expected = exact(module, activation, x, added)
        assert (prepared(x, added) - expected).abs().max() < 1e-5


def test_bfloat16_outputs_are_close_to_float64(form):
    module = convolution(padding=1).bfloat16()
    prepared, x, added = prepare_convolution(module, nn.ReLU()), maps(1, 32, 9, 11).bfloat16(), maps(1, 48, 9, 11)
    expected = exact(module, nn.ReLU(), x, added.bfloat16())
    y = prepared(x, added.bfloat16())
    assert y.dtype == torch.bfloat16
    assert (y - expected).abs().max() < 0.05


@pytest.mark.usefixtures("uncached")
def test_onednn_is_used_if_torch_includes_it():
    """No other test fails if the check of oneDNN fails wrongly: predictions would only be slower."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, OPERATORS[0]):
        pytest.skip("this build of torch has no oneDNN")
    assert onednn_works(torch.float32)
    assert ops._onednn_error(torch.float32) < 1e-5


@pytest.mark.usefixtures("uncached")
@pytest.mark.parametrize("name", OPERATORS)
def test_a_missing_operator_is_logged_once_and_plain_torch_is_used(name, monkeypatch, caplog):
    replace_operator(monkeypatch, name)
    module = convolution(kernel=1)
    prepared, x, added = prepare_convolution(module, nn.ReLU()), maps(1, 32, 9, 11), maps(1, 48, 9, 11)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert (prepared(x, added.clone()) - exact(module, nn.ReLU(), x, added)).abs().max() < 1e-5
    assert not onednn_works(torch.float32)
    assert caplog.text.count("slower torch code is used") == 1


@pytest.mark.usefixtures("uncached")
def test_onednn_is_not_used_if_its_signature_or_its_results_differ(monkeypatch, caplog):
    replace_operator(monkeypatch, "_convolution_pointwise", lambda x, weight: x)
    with caplog.at_level(logging.INFO):
        assert not onednn_works(torch.float32)
    ops._onednn_is_right.cache_clear()
    monkeypatch.undo()
    replace_operator(
        monkeypatch, "_convolution_pointwise", lambda x, weight, bias, *_: F.conv2d(x, weight.to_dense(), bias)
    )
    with caplog.at_level(logging.INFO):
        assert not onednn_works(torch.float32)


@pytest.mark.usefixtures("uncached")
def test_onednn_works_keeps_the_random_state_and_obeys_the_mkldnn_flag():
    before = torch.get_rng_state()
    works = onednn_works(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not onednn_works(torch.float32)
    assert onednn_works(torch.float32) == works
    assert not onednn_works(torch.float64)


def test_selected_tiles_equal_the_full_output(native):
    prepared = prepare_convolution(convolution(padding=1), nn.ReLU())
    if native.instruction_set() == "baseline":
        assert not prepared.supports_tiles()
        pytest.skip("this processor has no AVX2 and no AVX-512")
    x = maps(1, 32, 14, 16)
    assert prepared.supports_tiles()
    assert prepared.supports_tiles(x)
    wanted = torch.zeros(1, 14, 16)
    wanted[0, 4, 7] = 1
    partial, full = prepared(x, tiles_T=tiles_of(wanted)), prepared(x)
    assert torch.equal(partial[:, :, 4:6, 6:8], full[:, :, 4:6, 6:8])
    assert partial.count_nonzero() == partial[:, :, 4:6, 6:8].count_nonzero()
    assert not prepared.supports_tiles(x[:, :, :4, :4])
    with pytest.raises(ValueError, match="supports_tiles"):
        prepared(x, maps(1, 48, 14, 16), tiles_of(wanted))
    assert not prepare_convolution(convolution(padding=1, stride=2)).supports_tiles()


def test_unsupported_convolutions_and_activations_are_refused():
    class Subclass(nn.Conv2d):
        pass

    assert supports_convolution(convolution())
    assert not supports_convolution(Subclass(3, 4, 1))
    assert not supports_convolution(nn.Conv2d(3, 4, 3, padding="same"))
    assert not supports_convolution(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
    assert supports_activation(nn.ReLU6())
    assert not supports_activation(nn.GELU())
    assert not supports_activation(None)
    with pytest.raises(TypeError, match="expected a plain Conv2d"):
        prepare_convolution(nn.Linear(3, 4))
    with pytest.raises(TypeError, match="expected ReLU, ReLU6 or None"):
        prepare_convolution(convolution(), nn.GELU())
    assert isinstance(prepare_convolution(convolution()), PreparedConvolution)
