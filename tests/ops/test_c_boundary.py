"""Every kernel gives equal results whatever torch's default dtype and device are, for odd shapes and many threads.

Another library of the process may change torch's defaults. A buffer that takes its type from them is then too small
for what the C code writes, which corrupts the heap. `test_sanitized` runs these tests with AddressSanitizer.
"""

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import retinanet.ops
from retinanet.ops.atss import atss, level_positions
from retinanet.ops.candidates import candidates, candidates_native
from retinanet.ops.convolution import prepare_convolution
from retinanet.ops.focal_loss import focal_loss
from retinanet.ops.focal_loss_native import focal_loss_native
from retinanet.ops.focal_terms import FocalTerms
from retinanet.ops.matching import match, match_native
from retinanet.ops.nms import nms, nms_native
from retinanet.ops.task_aligned import task_aligned
from retinanet.ops.winograd import Winograd, supports_winograd
from retinanet.types import Target

OPS = Path(retinanet.ops.__file__).parent
FACTORIES = {"empty", "zeros", "ones", "full", "tensor", "rand", "randn", "eye", "linspace"}


@pytest.fixture(params=["bfloat16", "float16", "float64", "meta"])
def foreign_defaults(request):
    """Return a context in which torch's default dtype, or its default device, is not that of a new process."""

    class Defaults:
        def __enter__(self):
            if request.param == "meta":
                torch.set_default_device("meta")
            else:
                torch.set_default_dtype(getattr(torch, request.param))

        def __exit__(self, *_):
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)

    return Defaults()


def boxes(count, seed=0):
    corner_B2, side_B2 = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed)).unbind()
    return torch.cat([corner_B2 * 100, corner_B2 * 100 + 5 + side_B2 * 60], dim=1)


def calls():
    """Return one call of every kernel, on inputs that exist before the defaults change."""
    rng = torch.Generator().manual_seed(1)
    anchors_A4, scores_B = boxes(700), torch.rand(700, generator=rng)
    logits_NAK = torch.randn(2, 700, 5, generator=rng)
    targets = [Target(boxes_G4=boxes(n, n), labels_G=torch.arange(n) % 5, crowd_G=torch.arange(n) == 3) for n in (6, 0)]
    assigned = match(anchors_A4, targets, positive_iou=0.5, negative_iou=0.4, low_quality_matches=True)
    terms = FocalTerms(positive_weight_K=torch.ones(5), negative_weight_K=torch.ones(5), gamma=1.7, target=0.9)
    labels_B, scale_N = torch.arange(700) % 3, torch.tensor([0.5, 2.0])
    masks = (assigned.positive_NA, assigned.ignored_NA, assigned.labels_NA)
    convolution = torch.nn.Conv2d(32, 36, 3, padding=1).requires_grad_(False)
    x_NIHW = torch.randn(1, 32, 15, 18, generator=rng).to(memory_format=torch.channels_last)
    narrow = torch.nn.Conv2d(32, 20, 1).requires_grad_(False)

    def focal():
        inputs = logits_NAK.clone().requires_grad_()
        loss_N = focal_loss(inputs, *masks, terms=terms, scale_N=scale_N)
        return loss_N.detach(), torch.autograd.grad(loss_N, inputs, torch.ones_like(loss_N))[0]

    def fields(out):
        return out.positive_NA, out.ignored_NA, out.labels_NA, out.boxes_NA4, out.matched_NA

    def matching():
        return fields(match(anchors_A4, targets, positive_iou=0.5, negative_iou=0.4, low_quality_matches=True))

    def by_atss():
        rule = {"anchors_per_level": (500, 200), "candidates": 9, "crowd_share": 0.5, "low_quality_matches": True}
        level_positions.cache_clear()
        return fields(atss(anchors_A4, targets, **rule))

    def by_predictions():
        rule = {"predicted_NA4": anchors_A4[None] + 1, "crowd_share": 0.5, "low_quality_matches": True}
        return fields(task_aligned(anchors_A4, targets, logits_NAK=logits_NAK, **rule))

    return {
        "focal loss": focal,
        "matching": matching,
        "atss": by_atss,
        "task-aligned": by_predictions,
        "candidates": lambda: candidates(logits_NAK[0], (500, 200), threshold=0.3, most=100),
        "nms": lambda: (nms(anchors_A4, scores_B, labels_B, threshold=0.5, limit=200),),
        "convolution": lambda: (prepare_convolution(convolution)(x_NIHW),),
        "1x1 convolution": lambda: (prepare_convolution(narrow)(x_NIHW),),
    }


@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize("threads_used", [1, 3])
@pytest.mark.usefixtures("native")
def test_defaults_of_torch_do_not_change_any_result(name, threads_used, threads, foreign_defaults):
    threads(threads_used)
    call = calls()[name]
    expected = call()
    with foreign_defaults:
        found = call()
    for own, other in zip(expected, found, strict=True):
        assert (own.dtype, own.device) == (other.dtype, other.device)
        assert torch.equal(own, other)


@pytest.mark.usefixtures("native")
def test_the_torch_form_of_focal_loss_does_not_depend_on_the_defaults(monkeypatch, foreign_defaults):
    monkeypatch.setattr("retinanet.ops.focal_loss.native_library.available", lambda: False)
    call = calls()["focal loss"]
    expected = call()
    with foreign_defaults:
        assert all(map(torch.equal, expected, call()))


def test_only_the_boundary_takes_addresses_and_every_buffer_states_its_type_and_device():
    faults = []
    for path in OPS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            where = f"{path.name}:{node.lineno}"
            if node.func.attr == "data_ptr" and path.name != "native_library.py":
                faults.append(f"{where}: data_ptr, use native_library.address")
            is_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
            if is_torch and node.func.attr in FACTORIES and not {"dtype", "device"} <= {k.arg for k in node.keywords}:
                faults.append(f"{where}: torch.{node.func.attr} without dtype and device")
    assert not faults


@pytest.mark.usefixtures("native")
def test_empty_and_single_inputs():
    none_A4, one_A4 = torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    target = Target(boxes_G4=one_A4, labels_G=torch.zeros(1, dtype=torch.int64), crowd_G=torch.zeros(1).bool())
    options = {"positive_iou": 0.5, "negative_iou": 0.4, "low_quality_matches": False}
    assert match_native(none_A4, [target, target], **options).boxes_NA4.shape == (2, 0, 4)
    assert match_native(one_A4, [target], **options).positive_NA.tolist() == [[True]]
    assert nms_native(none_A4, torch.zeros(0), threshold=0.5).tolist() == []
    assert nms_native(one_A4, torch.ones(1), threshold=0.5, limit=0).tolist() == []
    for K in (1, 3):
        anchor_C, label_C, logit_C = candidates_native(torch.zeros(0, K), (0, 0), threshold=0.0, most=5)
        assert len(anchor_C) == len(label_C) == len(logit_C) == 0
    anchor_C, _, _ = candidates_native(torch.ones(3, 1), (1, 0, 2), threshold=0.0, most=9)
    assert anchor_C.tolist() == [0, 1, 2]
    terms = FocalTerms(positive_weight_K=torch.ones(1), negative_weight_K=torch.ones(1), gamma=2.0, target=1.0)
    for N, A in ((0, 4), (1, 0), (1, 1)):
        mask_NA = torch.zeros(N, A, dtype=torch.bool)
        sums_N, gradient_NAK = focal_loss_native(
            torch.zeros(N, A, 1), mask_NA, mask_NA, mask_NA.long(), terms, None, True
        )
        assert sums_N.shape == (N,)
        assert gradient_NAK.shape == (N, A, 1)


@pytest.mark.usefixtures("native")
def test_a_convolution_in_many_threads_at_once(threads):
    weight_OI33 = torch.randn(48, 32, 3, 3, generator=torch.Generator().manual_seed(2))
    if not supports_winograd(weight_OI33):
        pytest.skip("this processor has no AVX2")
    threads(3)
    convolution = Winograd(weight_OI33, torch.ones(48))
    shapes = [(1, 32, 8, 14), (2, 32, 15, 9), (1, 32, 40, 3), (3, 32, 6, 30)]
    inputs = [torch.randn(shape).to(memory_format=torch.channels_last) for shape in shapes] * 4
    expected = [convolution(x) for x in inputs]
    with ThreadPoolExecutor(6) as pool:
        assert all(map(torch.equal, pool.map(convolution, inputs), expected))


def test_unexpected_tensors_are_refused_in_words(native):
    values = torch.arange(6.0)
    cases = {
        "other type": (values.double(), TypeError, r"x: expected a dense CPU tensor of torch.float32, found .*float64"),
        "no memory": (values.to("meta"), TypeError, "x: expected a dense CPU tensor .* meta"),
        "sparse": (values.to_sparse(), TypeError, "torch.sparse_coo"),
        "other shape": (values[:5], ValueError, r"x: expected shape \(6,\), found \(5,\)"),
        "more dimensions": (values.view(2, 3), ValueError, r"found \(2, 3\)"),
        "strided": (torch.arange(12.0)[::2], ValueError, "contiguous"),
        "lazily negated": (torch._neg_view(values), TypeError, "expected a tensor that stores its values"),
    }
    for tensor, error, message in cases.values():
        with pytest.raises(error, match=message):
            native.address(tensor, name="x", dtype=torch.float32, shape=(6,))
    with pytest.raises(ValueError, match=r"bias: expected shape \(32,\), found \(1,\)"):
        Winograd(torch.zeros(32, 32, 3, 3), torch.zeros(1))


def test_a_convolution_of_another_type_than_its_weights_is_refused():
    """oneDNN would compute mixed types without an error."""
    convolution = prepare_convolution(torch.nn.Conv2d(8, 8, 3).requires_grad_(False))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="type"):
        convolution(torch.zeros(1, 8, 9, 9, dtype=torch.bfloat16).to(memory_format=torch.channels_last))
