"""The fused box loss against the box losses in torch: values and gradients.

The kernel is tested on a GPU. Without a GPU, the last test runs this file again through Triton's interpreter.
"""

import logging
import os
import subprocess
import sys

import pytest
import torch

from retinanet.config import LossConfig
from retinanet.losses.base import make_box_loss
from retinanet.ops import box_loss as module
from retinanet.ops.box_loss import BoxTerms, box_loss, supports_box_loss
from retinanet.types import MAX_LOG_SCALE

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = torch.device("cuda:0" if ON_GPU else "cpu")
needs_kernel = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU or Triton's interpreter: see the last test"
)


def random_case(N, A, *, positives=0.3, seed=0, dtype=torch.float32):
    """Return offsets, boxes, anchors, positives and factors. Unused offsets are NaN, unused boxes 0."""
    rng = torch.Generator().manual_seed(seed)
    corner_A2 = torch.rand(A, 2, generator=rng) * 50
    anchors_A4 = torch.cat([corner_A2, corner_A2 + 4 + 30 * torch.rand(A, 2, generator=rng)], dim=1)
    positive_NA = torch.rand(N, A, generator=rng) < positives
    low_NA2 = anchors_A4[:, :2] + 6 * torch.randn(N, A, 2, generator=rng)
    boxes_NA4 = torch.cat([low_NA2, low_NA2 + 3 + 30 * torch.rand(N, A, 2, generator=rng)], dim=2)
    deltas_NA4 = torch.randn(N, A, 4, generator=rng) * 0.5
    deltas_NA4[:, ::7, 2:] = MAX_LOG_SCALE + 1  # decoding limits the size of these boxes
    deltas_NA4[:, 1::7] = 0.0
    boxes_NA4[:, 1::7] = anchors_A4[1::7]  # the exact box
    deltas_NA4[:, 2::7, 0] = 30.0  # no overlap
    deltas_NA4[~positive_NA], boxes_NA4[~positive_NA] = torch.nan, 0.0
    case = (deltas_NA4.to(dtype), boxes_NA4, anchors_A4, positive_NA, torch.linspace(0.1, 2, N))
    return tuple(values.to(DEVICE) for values in case)


def expected_loss(name, beta, deltas_NA4, boxes_NA4, anchors_A4, positive_NA, scale_N):
    """Return the loss of each image from the box loss in torch, of the positive anchors."""
    n, a = torch.nonzero(positive_NA, as_tuple=True)
    loss = make_box_loss(LossConfig(box_loss=name, smooth_l1_beta=beta))
    loss_P = loss(deltas_NA4[n, a], boxes_NA4[n, a], anchors_A4[a])
    return scale_N * loss_P.new_zeros(len(scale_N)).index_add(0, n, loss_P)


@needs_kernel
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "beta"), [("smooth_l1", 0.11), ("smooth_l1", 1.0), ("l1", 0.11), ("giou", 0.11)])
def test_kernel_values_and_gradients_are_those_of_the_torch_losses(name, beta, dtype):
    """Some anchors fill no whole block. float32 sums have another order, and gradients are rounded to `dtype` once."""
    terms = make_box_loss(LossConfig(box_loss=name, smooth_l1_beta=beta)).fused_terms()
    for N, A, positives in ((1, 1, 1.0), (3, 70, 0.3), (2, 1100, 0.5), (2, 40, 0.0)):
        case = random_case(N, A, positives=positives, dtype=dtype)
        incoming_N = torch.linspace(1, -2, N, device=DEVICE)
        results = []
        for function in (
            lambda *tensors: box_loss(*tensors, terms),
            lambda *tensors: expected_loss(name, beta, *tensors),
        ):
            deltas_NA4 = case[0].clone().requires_grad_()
            loss_N = function(deltas_NA4, *case[1:])
            results.append((loss_N, *torch.autograd.grad(loss_N, deltas_NA4, incoming_N)))
        (loss_N, gradient_NA4), (expected_N, slope_NA4) = results
        assert (loss_N.dtype, gradient_NA4.dtype) == (torch.float32, dtype)
        torch.testing.assert_close(loss_N, expected_N, rtol=1e-5, atol=1e-5)
        rtol = 1e-4 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(gradient_NA4, slope_NA4, rtol=rtol, atol=2e-5)
        with torch.no_grad():
            assert torch.equal(box_loss(*case, terms), loss_N)


@needs_kernel
def test_kernel_gives_hand_worked_values():
    """The anchor is 10 x 10 and all offsets are 0. A box shifted by 1 in x: dx = 0.1 and IoU 90 / 110.

    Smooth L1 (beta 1/9): 0.5 x 0.01 x 9 = 0.045, and its derivative by dx is -0.1 x 9. L1: 0.1 and -1.
    """
    anchor_14 = torch.tensor([[0.0, 0, 10, 10]], device=DEVICE)
    box_114 = torch.tensor([[[1.0, 0, 11, 10]]], device=DEVICE)
    one_11, one_1 = torch.ones((1, 1), dtype=torch.bool, device=DEVICE), torch.ones(1, device=DEVICE)
    for terms, loss, slope in (
        (BoxTerms(kind="offsets", beta=1 / 9), 0.045, -0.9),
        (BoxTerms(kind="offsets"), 0.1, -1.0),
        (BoxTerms(kind="giou"), 1 - 90 / 110, None),
    ):
        deltas_114 = torch.zeros(1, 1, 4, device=DEVICE, requires_grad=True)
        loss_1 = box_loss(deltas_114, box_114, anchor_14, one_11, one_1, terms)
        loss_1.backward()
        assert loss_1.item() == pytest.approx(loss)
        if slope is not None:
            assert deltas_114.grad[0, 0].tolist() == pytest.approx([slope, 0, 0, 0])


@needs_kernel
def test_kernel_refuses_wrong_types_shapes_and_second_derivatives():
    case, terms = random_case(2, 5), BoxTerms(kind="giou")
    with pytest.raises(TypeError, match=r"positive_NA: expected torch\.bool"):
        box_loss(*case[:3], case[3].float(), case[4], terms)
    with pytest.raises(ValueError, match=r"anchors_A4: expected shape \(5, 4\), found \(4, 4\)"):
        box_loss(*case[:2], case[2][:4], *case[3:], terms)
    deltas_NA4 = case[0].nan_to_num().requires_grad_()
    loss = box_loss(deltas_NA4, *case[1:], terms).sum()
    (slope,) = torch.autograd.grad(loss, deltas_NA4, create_graph=True)
    with pytest.raises(RuntimeError, match="box_loss can be differentiated once"):
        (loss + slope.square().sum()).backward()
    empty = random_case(2, 0)
    assert box_loss(*empty, terms).tolist() == [0.0, 0.0]


def test_only_cuda_tensors_are_supported():
    x = torch.zeros(1, 2, 4)
    assert not supports_box_loss(x, x, x[0])
    assert not supports_box_loss(x.to("meta"), x, x[0])


@pytest.fixture
def uncached():
    module.works.cache_clear()
    yield torch.device("cpu")
    module.works.cache_clear()


def test_a_kernel_that_fails_or_computes_a_wrong_loss_is_not_used(uncached, monkeypatch, caplog):
    monkeypatch.setattr(module, "box_loss", lambda *_: torch.tensor(0.5))
    with caplog.at_level(logging.WARNING):
        assert not module.works(uncached)
    assert "box loss: Triton cannot be used on cpu (offsets: expected a loss of 1, found 0.5)" in caplog.text


@needs_kernel
def test_a_kernel_that_works_is_used(uncached):
    assert module.works(DEVICE)


@pytest.mark.slow
def test_the_kernel_compiles_for_nvidia_gpus():
    """Triton compiles without a GPU. Each kind and type of offsets gives code of its own."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if INTERPRETED:
        pytest.skip("the interpreter does not compile")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from retinanet.ops.box_loss_triton import BLOCK, WARPS, _box_kernel

    for giou, dtype in ((True, "*bf16"), (False, "*fp32")):
        constants = {"GIOU": giou, "WITH_GRADIENT": True, "BLOCK": BLOCK}
        types = dict.fromkeys(_box_kernel.arg_names, "*fp32") | dict.fromkeys(constants, "constexpr")
        types |= {"deltas": dtype, "gradient": dtype, "positive": "*u8", "beta": "fp32", "max_log_scale": "fp32"}
        types |= {"anchors_per_image": "i32", "blocks_per_image": "i32"}
        options = {"num_warps": WARPS, "enable_fp_fusion": True}
        source = ASTSource(fn=_box_kernel, signature=types, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options)
        assert "st.global" in compiled.asm["ptx"]


@pytest.mark.slow
def test_the_kernel_passes_its_tests_in_the_interpreter():
    """TRITON_INTERPRET must be set before Triton is imported, so the tests run in a new process."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if INTERPRETED or os.environ.get("RETINANET_NATIVE_LIBRARY"):
        pytest.skip("these tests run in the interpreter already, or only C code is tested")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "kernel", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout[-4000:] + completed.stderr[-4000:]
    assert "passed" in completed.stdout
