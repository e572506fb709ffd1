"""Winograd's convolution against torch in float64, for all tiles and for selected tiles."""

import math

import pytest
import torch
import torch.nn.functional as F

from retinanet.ops.winograd import Winograd, supports_winograd, tiles_of


@pytest.fixture(params=["avx2", "avx512"])
def vectors(native, request):
    """Run a test with AVX2 and with AVX-512, if the processor supports the instruction set."""
    if request.param not in native.instruction_sets():
        pytest.skip(f"this processor has no {request.param}")
    with native.use_instruction_set(request.param):
        yield


def case(N, I, O, H, W):  # noqa: E741
    rng = torch.Generator().manual_seed(I * H + W)
    x = torch.randn(N, I, H, W, generator=rng).to(memory_format=torch.channels_last)
    return x, torch.randn(O, I, 3, 3, generator=rng) / (3 * math.sqrt(I)), torch.randn(O, generator=rng)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(
    ("N", "I", "O", "H", "W"),
    [
        (1, 32, 32, 14, 14),
        (2, 48, 36, 17, 9),  # odd sides: the last tiles are partly outside; 36 outputs do not fill a panel
        (3, 256, 64, 12, 31),
        (1, 64, 819, 25, 34),  # more outputs than a chunk
        (1, 512, 300, 1, 70),
    ],
)
def test_outputs_equal_torch_in_float64(N, I, O, H, W):  # noqa: E741
    x, weight, bias = case(N, I, O, H, W)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert supports_winograd(weight)
    assert (Winograd(weight, bias)(x) - expected).abs().max() < 1e-5
    clamped = Winograd(weight, low=0.0, high=1.0)(x)
    unclamped = F.conv2d(x.double(), weight.double(), padding=1)
    assert (clamped - unclamped.clamp(0, 1)).abs().max() < 1e-5
    assert clamped.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("vectors")
def test_a_kernel_of_ones_counts_the_neighbours():
    """The input is 1 everywhere: the sum is 4 in corners, 6 at edges and 9 inside, times 32 channels."""
    x = torch.ones(1, 32, 4, 14).to(memory_format=torch.channels_last)
    y = Winograd(torch.ones(32, 32, 3, 3))(x)[0, 5]
    assert torch.equal(y[0], 32 * torch.tensor([4.0] + [6.0] * 12 + [4.0]))
    assert torch.equal(y[1], 32 * torch.tensor([6.0] + [9.0] * 12 + [6.0]))


@pytest.mark.usefixtures("vectors")
def test_selected_tiles_equal_the_full_output_and_all_others_are_0(threads):
    x, weight, bias = case(2, 64, 40, 19, 23)
    convolution = Winograd(weight, bias, low=0.0)
    threads(1)
    full = convolution(x)
    wanted = torch.zeros(2, 19, 23)
    wanted[0, 3, 4] = wanted[0, 18, 22] = wanted[1, 0, 0] = 1
    tiles = tiles_of(wanted)
    assert tiles.tolist() == [1 * 12 + 2, 9 * 12 + 11, 120]
    computed = F.max_pool2d(wanted[:, None], 2, ceil_mode=True).repeat_interleave(2, 2).repeat_interleave(2, 3)
    computed = computed[:, :, :19, :23].bool()
    for count in (1, 3):
        threads(count)
        assert torch.equal(convolution(x), full)
        assert torch.equal(convolution(x, tiles), torch.where(computed, full, 0.0))
    assert not convolution(x, tiles[:0]).any()  # an empty list computes no tile


@pytest.mark.usefixtures("vectors")
def test_nan_and_infinity_propagate_to_the_outputs():
    x, weight, bias = case(1, 32, 32, 14, 14)
    x[0, 3, 7, 7] = math.nan
    y = Winograd(weight, bias, low=0.0, high=6.0)(x)
    assert y[0, :, 7, 7].isnan().all()
    assert not y[0, :, :4].isnan().any()
    x[0, 3, 7, 7] = math.inf
    assert not Winograd(weight, bias)(x)[0, :, 7, 7].isfinite().any()


def test_unsupported_kernels_and_inputs_are_refused(native):
    assert not supports_winograd(torch.zeros(64, 64, 1, 1))
    assert not supports_winograd(torch.zeros(64, 40, 3, 3))
    assert not supports_winograd(torch.zeros(64, 64, 3, 3, dtype=torch.bfloat16))
    with native.use_instruction_set("baseline"):
        assert not supports_winograd(torch.zeros(64, 64, 3, 3))
    x, weight, bias = case(1, 64, 64, 14, 14)
    convolution = Winograd(weight, bias)
    assert convolution.supports(x)
    assert not convolution.supports(x.contiguous())
    assert not convolution.supports(x.bfloat16())
    assert not convolution.supports(x[:, :, :8, :8].contiguous(memory_format=torch.channels_last))
    with pytest.raises(ValueError, match="expected a contiguous"):
        convolution(x.contiguous())
    with pytest.raises(ValueError, match="a tile index does not exist"):
        convolution(x, torch.tensor([49], dtype=torch.int32))
    with pytest.raises(TypeError, match="int32"):
        convolution(x, torch.tensor([1]))
