"""Post-processing of a batch on a GPU: the detections of the CPU, in a fixed number of kernels and with one wait.

The tests run the code for GPUs on the device double.
"""

import dataclasses
import math

import pytest
import torch

from retinanet.config import PostprocessConfig
from retinanet.images import Frame
from retinanet.postprocess import postprocess
from retinanet.types import HeadOutputs
from tests.device_double import double, to_double

LEVELS = (200, 50, 13, 4, 1)
KERNELS = 58
"""Kernels of post-processing for a batch of any size with five feature levels."""


def make_outputs(N=2, K=3, *, seed=0, shift=-1.0):
    """Return random outputs. Many boxes overlap."""
    rng, A = torch.Generator().manual_seed(seed), sum(LEVELS)
    corner_A2 = torch.rand(A, 2, generator=rng) * 180 - 10
    return HeadOutputs(
        logits_NAK=torch.randn(N, A, K, generator=rng) * 2 + shift,
        deltas_NA4=torch.randn(N, A, 4, generator=rng) * 0.2,
        anchors_A4=torch.cat([corner_A2, corner_A2 + 10 + torch.rand(A, 2, generator=rng) * 60], dim=1),
        anchors_per_level=LEVELS,
    )


def check_equal_to_cpu(outputs, **options):
    """Check that the double gives the detections of the CPU in the same order. Return their numbers, and the counts.

    Scores and boxes may differ by the last bit: torch's exponential rounds the last numbers of a tensor, which fill no
    whole vector register, in another way.
    """
    config = PostprocessConfig(**options)
    frames = [Frame(300 + 40 * n, 310 - 7 * n, 150 + 10 * n, 160 - 5 * n) for n in range(len(outputs.logits_NAK))]
    expected = postprocess(outputs, frames=frames, config=config)
    with double() as counts:
        found = postprocess(to_double(outputs), frames=frames, config=config)
    assert len(found) == len(expected)
    for detections, cpu_detections in zip(found, expected, strict=True):
        assert torch.equal(detections.labels_D, cpu_detections.labels_D)
        torch.testing.assert_close(detections.scores_D, cpu_detections.scores_D, rtol=2e-7, atol=0)
        torch.testing.assert_close(detections.boxes_D4, cpu_detections.boxes_D4, rtol=1e-6, atol=1e-4)
    return [len(detections.scores_D) for detections in found], counts


@pytest.mark.parametrize("N", [1, 2, 8])
def test_a_batch_of_any_size_takes_the_same_kernels_and_one_wait(N):
    numbers, counts = check_equal_to_cpu(make_outputs(N), max_detections=20)
    assert numbers == [20] * N
    assert (counts.kernels, counts.syncs, counts.transfers) == (KERNELS, 1, 1), counts


@pytest.mark.parametrize("clip_before_nms", [True, False])
@pytest.mark.parametrize("nms_threshold", [0.0, 0.5, 1 / 3, 1.0])
@pytest.mark.parametrize("score_threshold", [0.0, 0.05, 0.6, 1.0])
def test_every_threshold_gives_the_detections_of_the_cpu(clip_before_nms, nms_threshold, score_threshold):
    for K in (1, 5):
        numbers, counts = check_equal_to_cpu(
            make_outputs(2, K),
            clip_before_nms=clip_before_nms,
            nms_threshold=nms_threshold,
            score_threshold=score_threshold,
        )
        assert counts.syncs <= 2
        assert (max(numbers) == 0) == (score_threshold == 1)


@pytest.mark.parametrize("candidates_per_level", [1, 4, 30, 1000])
@pytest.mark.parametrize("max_detections", [1, 7, 300, 5000])
def test_every_limit_gives_the_detections_of_the_cpu(candidates_per_level, max_detections):
    limits = {"candidates_per_level": candidates_per_level, "max_detections": max_detections}
    numbers, counts = check_equal_to_cpu(make_outputs(3, 4, shift=1.0), **limits)
    assert counts.syncs <= 2
    assert 0 < min(numbers) <= max(numbers) <= max_detections


@pytest.mark.parametrize("limit", [5, 20, 1000])
def test_class_agnostic_nms_gives_the_detections_of_the_cpu_with_as_many_kernels(limit):
    outputs = make_outputs(2, 4)
    numbers, counts = check_equal_to_cpu(outputs, max_detections=limit, agnostic_nms=True)
    assert counts.kernels == KERNELS * counts.syncs
    assert numbers != check_equal_to_cpu(outputs, max_detections=limit)[0] or limit < 1000
    rounded = dataclasses.replace(outputs, logits_NAK=outputs.logits_NAK.round())
    check_equal_to_cpu(rounded, max_detections=limit, agnostic_nms=True)


@pytest.mark.parametrize("decimals", [0, 1])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_equal_scores_keep_the_order_of_the_cpu(decimals, shift):
    """With shift 30, different logits have the score 1 in float32."""
    outputs = make_outputs(3, shift=shift)
    outputs = dataclasses.replace(outputs, logits_NAK=outputs.logits_NAK.round(decimals=decimals))
    for limit in (3, 50, 1000):
        check_equal_to_cpu(outputs, candidates_per_level=limit, max_detections=limit)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_give_the_detections_of_the_cpu(dtype):
    outputs = make_outputs()
    outputs = dataclasses.replace(
        outputs, logits_NAK=outputs.logits_NAK.to(dtype), deltas_NA4=outputs.deltas_NA4.to(dtype)
    )
    numbers, _ = check_equal_to_cpu(outputs)
    assert min(numbers) > 50


def test_images_without_detections_and_logits_that_are_infinite():
    outputs = make_outputs(4)
    outputs.logits_NAK[0], outputs.logits_NAK[1, 7:] = -9.0, -math.inf
    outputs.logits_NAK[2, ::2] = math.inf
    numbers, counts = check_equal_to_cpu(outputs)
    assert numbers[0] == 0 < min(numbers[1:])
    assert counts.syncs == 1
    empty, _ = check_equal_to_cpu(dataclasses.replace(outputs, logits_NAK=torch.full_like(outputs.logits_NAK, -9.0)))
    assert empty == [0] * 4


def test_a_score_of_nan_is_never_a_detection_and_costs_a_second_copy():
    outputs = make_outputs(3)
    outputs.logits_NAK[1, 5:150, 1] = math.nan
    outputs.deltas_NA4[2, 3] = math.nan
    for limit in (5, 1000):
        _, counts = check_equal_to_cpu(outputs, candidates_per_level=limit)
        assert counts.syncs == 2


def test_a_second_copy_is_made_if_the_first_candidates_are_not_enough():
    """The 100 highest scores are one box, so 99 of the first 12 or 40 candidates are not kept."""
    outputs = make_outputs(2, 1)
    for values, one in ((outputs.deltas_NA4, 0.0), (outputs.anchors_A4[None], torch.tensor([5.0, 5, 50, 50]))):
        values[:, :100] = one
    outputs.logits_NAK[:, :100] = 10.0
    for limit, waits in ((3, 2), (10, 2), (1, 1)):
        numbers, counts = check_equal_to_cpu(outputs, max_detections=limit)
        assert numbers == [limit] * 2
        assert counts.syncs == waits


def test_outputs_on_two_devices_and_missing_frames_are_errors():
    outputs, frame = make_outputs(), Frame(100, 100, 100, 100)
    mixed = dataclasses.replace(to_double(outputs), deltas_NA4=outputs.deltas_NA4)
    with double(), pytest.raises(RuntimeError, match="expected all tensors on meta"):
        postprocess(mixed, frames=[frame] * 2, config=PostprocessConfig())
    for on_device in (outputs, to_double(outputs)):
        with pytest.raises(ValueError, match="expected a frame for each of 2 images, found 1 frames"):
            postprocess(on_device, frames=[frame], config=PostprocessConfig())
