"""Candidates in C and in torch against a full sort."""

import math

import pytest
import torch

from retinanet.ops import candidates as candidates_module
from retinanet.ops.candidates import batch_candidates, candidates, candidates_torch
from tests.ops import reference


def batch_form(logits_AK, anchors_per_level, **options):
    """Return the candidates of the middle image of a batch of three, without the places that hold no candidate."""
    logits_NAK = torch.stack([logits_AK.flip(0), logits_AK, -logits_AK])
    columns = batch_candidates(logits_NAK, anchors_per_level, **options)
    if columns[2][1].isnan().any():
        logits_NAK = logits_NAK.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        columns = batch_candidates(logits_NAK, anchors_per_level, **options)
    return tuple(column[1][columns[2][1] > -math.inf] for column in columns)


@pytest.fixture(params=["c", "torch", "batch"])
def form(request):
    if request.param != "c":
        return candidates_torch if request.param == "torch" else batch_form
    request.getfixturevalue("native")
    return candidates


def check_candidates(form, logits, levels, **options):
    anchor, label, logit = form(logits, levels, **options)
    assert (anchor.dtype, label.dtype, logit.dtype) == (torch.int64, torch.int64, torch.float32)
    expected = reference.candidates(logits, levels, **options)
    assert [anchor.tolist(), label.tolist(), logit.tolist()] == expected
    return len(anchor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_equals_a_full_sort(form, dtype):
    """The cases have few, many and no candidates, equal scores, NaN, infinities, -0, and several thresholds."""
    rng = torch.Generator().manual_seed(5)
    total = 0
    for case in range(120):
        K = (1, 3, 20, 91)[case % 4]
        levels = [int(n) for n in torch.randint(0, 60, (1 + case % 4,), generator=rng)]
        logits = torch.randn(sum(levels), K, generator=rng) * 3
        if case % 3 == 0:
            logits = logits.round()
        if case % 5 == 0 and logits.numel():
            for value in (math.nan, -math.nan, math.inf, -math.inf, -0.0, 0.0, 60000.0):
                logits.view(-1)[torch.randint(logits.numel(), (3,), generator=rng)] = value
        threshold = (-2.944438979166, 0.0, -math.inf, math.inf, 1.0)[case % 5]
        total += check_candidates(
            form, logits.to(dtype), levels, threshold=threshold, most=(1, 7, 100, 10_000)[case // 4 % 4]
        )
    assert total > 5000


def test_many_scores_above_the_threshold_in_every_order(form):
    """100,000 scores exceed the threshold, so the buffers of the C form overflow and their threshold rises."""
    count, levels = 100_000, (20_000, 5_000)
    orders = {
        "rising": torch.linspace(-1, 1, count),
        "falling": torch.linspace(1, -1, count),
        "random": torch.rand(count, generator=torch.Generator().manual_seed(6)),
        "equal": torch.ones(count),
        "two values": (torch.arange(count) % 3 == 0).float(),
    }
    for values in orders.values():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert check_candidates(form, values.view(25_000, 4).to(dtype), levels, threshold=-2.0, most=500) == 1000


@pytest.mark.slow
def test_every_16_bit_float_is_ordered_as_in_float32(form):
    """All bfloat16 and float16 numbers, including NaN, have the order, threshold and value of float32."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    shuffled = bits[torch.randperm(len(bits), generator=torch.Generator().manual_seed(7))]
    for dtype in (torch.bfloat16, torch.float16):
        for threshold in (-math.inf, -1.3, 0.0, 3e-8, 70000.0, math.inf):
            check_candidates(form, shuffled.view(dtype).view(-1, 64), (1000, 24), threshold=threshold, most=70_000)


def test_results_do_not_depend_on_instruction_set_and_threads(native, threads):
    rng = torch.Generator().manual_seed(8)
    logits, levels = torch.randn(60_000, 10, generator=rng).round(decimals=2), (45_000, 12_000, 3_000)
    for dtype in (torch.float32, torch.bfloat16):
        expected = candidates_torch(logits.to(dtype), levels, threshold=0.5, most=300)
        assert len(expected[0]) == 900
        for name in native.instruction_sets():
            with native.use_instruction_set(name):
                for count in (1, 2, 7):
                    threads(count)
                    columns = candidates(logits.to(dtype), levels, threshold=0.5, most=300)
                    assert all(torch.equal(column, other) for column, other in zip(columns, expected, strict=True))


def test_logits_may_be_strided_or_require_a_gradient(form):
    rng = torch.Generator().manual_seed(9)
    logits = torch.randn(2, 12, 50, generator=rng).transpose(1, 2)
    assert not logits[1].is_contiguous()
    assert check_candidates(form, logits[1], (30, 20), threshold=0.0, most=40) == 80
    batch = torch.randn(3, 50, 12, generator=rng, requires_grad=True)
    assert check_candidates(form, batch[2], (30, 20), threshold=0.0, most=40) == 80


def test_anchors_per_level_must_add_up(form):
    with pytest.raises(ValueError, match="add up to 50"):
        form(torch.zeros(50, 2), (30, 19), threshold=0.0, most=5)


@pytest.mark.parametrize("most", [1, 5, 1000])
def test_a_batch_in_several_parts_has_the_same_candidates(monkeypatch, most):
    """`most` is smaller than, between and larger than the numbers of scores of the levels."""
    logits = torch.randn(5, 60, 4, generator=torch.Generator().manual_seed(10)).round(decimals=1)
    options = {"threshold": 0.2, "most": most}
    expected = batch_candidates(logits, (48, 11, 1), **options)
    monkeypatch.setattr(candidates_module, "_MOST_VALUES", 2 * sum(min(most, n) for n in (48, 11, 1)) * 4)
    columns = batch_candidates(logits, (48, 11, 1), **options)
    assert all(torch.equal(*pair) for pair in zip(columns, expected, strict=True))
    assert expected[0].shape == (5, sum(min(most, 4 * n) for n in (48, 11, 1)))
