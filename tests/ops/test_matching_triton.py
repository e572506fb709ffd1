"""The Triton form of matching without a GPU: results in Triton's interpreter, compiled code, launches, the choice."""

import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from retinanet.ops import matching
from retinanet.ops.matching_torch import match_torch
from retinanet.types import Target
from tests.device_double import double, to_double
from tests.ops.triton_interpreter import run_triton_tests

FORMS = Path(__file__).with_name("test_matching.py")
RULE = {"positive_iou": 0.5, "negative_iou": 0.4}
POINTERS = {
    **dict.fromkeys(("anchors", "boxes", "highest", "out_boxes"), "*fp32"),
    **dict.fromkeys(("labels", "out_labels", "matched"), "*i64"),
    **dict.fromkeys(("crowd", "positive", "ignored"), "*u8"),
    **dict.fromkeys(("positive_iou", "negative_iou"), "fp32"),
}
"""Types of the parameters of the kernels. All others are 32-bit integers."""


@pytest.mark.slow
def test_the_triton_form_passes_its_tests_in_the_interpreter():
    # NumPy warns of NaN and overflow.
    run_triton_tests(FORMS, ignored_warning="ignore::RuntimeWarning")


def _float_instructions(kernel, *, warps, **constants):
    """Return the float32 instructions of a kernel, compiled for an NVIDIA GPU of compute capability 8.0."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: "constexpr" if name in constants else POINTERS.get(name, "i32") for name in kernel.arg_names}
    options = {"num_warps": warps, "enable_fp_fusion": False}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    code = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["ptx"]
    return set(re.findall(r"\b(?:fma|mad|mul|add|sub|div|rcp)\.[a-z0-9.]*f32", code))


@pytest.mark.slow
def test_compiled_kernels_neither_fuse_nor_approximate(tmp_path, monkeypatch):
    """A fused multiplication and addition or an approximate division would give another last bit than the C form."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the interpreter does not compile")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from retinanet.ops import matching_triton as form

    exact = {"mul.rn.f32", "add.rn.f32", "sub.rn.f32", "div.rn.f32"}
    match = _float_instructions(form._match_kernel, warps=form.WARPS, TILE=form.TILE, LOW_QUALITY=True)
    highest = _float_instructions(form._highest_kernel, warps=form.HIGHEST_WARPS, TILE=form.HIGHEST_TILE)
    assert (match, highest) == (exact, exact)


class _Kernel:
    """A kernel that only records its launches."""

    def __init__(self):
        self.grids = []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return lambda *args, **kwargs: None


@pytest.mark.parametrize(("low_quality", "launches"), [(False, 2), (True, 3)])
@pytest.mark.parametrize("counts", [(10, 10), (100, 100), (0, 3, 0, 50, 7), (0, 0)])
def test_matching_in_triton_launches_one_copy_and_one_or_two_kernels(monkeypatch, low_quality, launches, counts):
    pytest.importorskip("triton", reason="Triton is not installed")
    from retinanet.ops import matching_triton as form

    match, highest = _Kernel(), _Kernel()
    monkeypatch.setattr(form, "_match_kernel", match)
    monkeypatch.setattr(form, "_highest_kernel", highest)
    targets = [
        Target(
            boxes_G4=torch.rand(count, 4),
            labels_G=torch.zeros(count, dtype=torch.int64),
            crowd_G=torch.zeros(count, dtype=torch.bool),
        )
        for count in counts
    ]
    with double() as count:
        form.match_triton(to_double(torch.rand(700, 4)), to_double(targets), **RULE, low_quality_matches=low_quality)
    assert count.kernels + len(match.grids) + len(highest.grids) == launches, count
    assert count.syncs == 0, count
    assert match.grids == [(len(counts) * 2,)]  # two tiles of 512 anchors
    assert highest.grids == [(len(counts) * max(1, *counts),)] * low_quality


@pytest.fixture
def uncached():
    """Clear the cache of `triton_matches` before and after the test."""
    matching.triton_matches.cache_clear()
    yield
    matching.triton_matches.cache_clear()


@pytest.mark.parametrize("fault", [ImportError("No module named 'triton'"), RuntimeError("0 active drivers")])
def test_if_triton_fails_it_is_logged_once(uncached, monkeypatch, caplog, fault):
    def broken(*_, **__):
        raise fault

    monkeypatch.setattr(matching, "match_triton", broken)
    with caplog.at_level(logging.WARNING):
        assert [matching.triton_matches(torch.device("cpu")) for _ in range(3)] == [False] * 3
    assert caplog.text.count("matching: Triton cannot be used on cpu") == 1


def test_triton_is_not_used_if_it_matches_wrongly(uncached, monkeypatch, caplog):
    def no_low_quality(anchors, targets, **rule):
        return match_torch(anchors, targets, **{**rule, "positive_iou": 0.4})

    monkeypatch.setattr(matching, "match_triton", no_low_quality)
    assert not matching.triton_matches(torch.device("cpu"))
    assert "expected [[[1, 0, 1, 0]]" in caplog.text
    matching.triton_matches.cache_clear()
    monkeypatch.setattr(matching, "match_triton", match_torch)
    assert matching.triton_matches(torch.device("cpu"))


def test_triton_is_chosen_for_float32_tensors_on_one_cuda_device(monkeypatch):
    """CUDA tensors cannot be created without a GPU, so objects with a device and a type stand for them."""

    def tensor(device="cuda:0", dtype=torch.float32):
        return SimpleNamespace(device=torch.device(device), dtype=dtype)

    def supported(anchors, labels):
        target = SimpleNamespace(boxes_G4=tensor(), labels_G=labels, crowd_G=tensor())
        return matching.supports_match_triton(anchors, [target])

    monkeypatch.setattr(matching, "triton_matches", lambda device: True)
    assert supported(tensor(), tensor())
    assert not supported(tensor(dtype=torch.float64), tensor())
    assert not supported(tensor("cpu"), tensor())
    assert not supported(tensor(), tensor("cuda:1"))
    monkeypatch.setattr(matching, "triton_matches", lambda device: False)
    assert not supported(tensor(), tensor())
