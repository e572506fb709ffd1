"""Matching on another device than the CPU: equal results, a fixed number of kernels, no waiting, and bounded memory."""

import pytest
import torch

from retinanet.config import MatchConfig
from retinanet.matching import match
from retinanet.ops import matching_torch
from retinanet.ops.matching import match_torch
from retinanet.types import Target
from tests.device_double import DEVICE, double, peak_bytes, to_cpu, to_double
from tests.ops import reference
from tests.ops.test_matching import assert_equal, network_anchors, options, random_boxes, random_target


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("counts", [(10, 10), (100, 100), (0, 0), (3, 0, 50, 7, 1, 1, 0, 9)])
def test_counts_do_not_depend_on_images_and_boxes(counts, low_quality):
    rng = torch.Generator().manual_seed(0)
    anchors = network_anchors(320, 256)
    targets = [random_target(rng, count, "anywhere") for count in counts]
    config = MatchConfig(low_quality_matches=low_quality)
    with double() as count:
        result = match(to_double(anchors), to_double(targets), config)
    assert (count.kernels, count.syncs, count.transfers) == (50 if low_quality else 44, 0, 0), count
    assert_equal(to_cpu(result), match(anchors, targets, config))


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize(
    ("pairs", "kernels"), [(3000, (44, 50)), (2000, (68, 80)), (1000, (92, 110)), (500, (164, 260))]
)
def test_each_chunk_adds_a_fixed_number_of_kernels(monkeypatch, pairs, kernels, low_quality):
    """Three images of 100 anchors x 10 boxes are chunks of three images, of two and one, or of half an image."""
    monkeypatch.setattr(matching_torch, "PAIRS", pairs)
    rng = torch.Generator().manual_seed(0)
    anchors, targets = random_boxes(rng, 100, "grid"), [random_target(rng, count, "grid") for count in (10, 0, 4)]
    config = MatchConfig(low_quality_matches=low_quality)
    with double() as count:
        result = match(to_double(anchors), to_double(targets), config)
    assert (count.kernels, count.syncs) == (kernels[low_quality], 0)
    assert_equal(to_cpu(result), match(anchors, targets, config))


@pytest.mark.parametrize("kind", ["grid", "huge", "faults"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_results_equal_the_reference_in_every_float_type(dtype, kind):
    rng = torch.Generator().manual_seed(1)
    for case in range(10):
        anchors = random_boxes(rng, 70, kind).to(dtype)
        targets = [random_target(rng, count, kind) for count in (5, 0, 20)]
        config = MatchConfig(positive_iou=(0.5, 0.0)[case % 2], negative_iou=0.0, low_quality_matches=case % 3 == 0)
        with double() as count:
            result = to_cpu(match(to_double(anchors), to_double(targets), config))
        assert count.syncs == 0
        assert result.boxes_NA4.dtype == dtype
        assert_equal(result, reference.match(anchors, targets, config))


@pytest.mark.parametrize("moved", ["anchors", "targets"])
def test_anchors_and_targets_on_two_devices_are_an_error(moved):
    rng = torch.Generator().manual_seed(2)
    anchors, targets = random_boxes(rng, 20, "grid"), [random_target(rng, 3, "grid")]
    if moved == "anchors":
        anchors = to_double(anchors)
    else:
        targets = to_double(targets)
    with double(), pytest.raises(RuntimeError, match="expected all tensors on"):
        match(anchors, targets, MatchConfig())


@pytest.mark.parametrize(
    ("images", "boxes", "most"), [pytest.param(16, 500, 370, marks=pytest.mark.slow), (16, 30, 310), (2, 100, 290)]
)
def test_peak_memory_for_201_600_anchors(images, boxes, most):
    """The peak is in MiB. It includes the result, 34 bytes per image and anchor: 105 MiB for 16 images.

    A chunk of pairs takes up to 272 MiB. Tensors without values suffice, because no operation depends on a value.
    """
    target = Target(
        boxes_G4=torch.empty(boxes, 4, device=DEVICE),
        labels_G=torch.empty(boxes, dtype=torch.int64, device=DEVICE),
        crowd_G=torch.empty(boxes, dtype=torch.bool, device=DEVICE),
    )
    anchors = torch.empty(201_600, 4, device=DEVICE)
    rule = options(MatchConfig(low_quality_matches=True))
    peak = peak_bytes(lambda: match_torch(anchors, [target] * images, **rule))
    assert 0.9 * most < peak / 2**20 < most
