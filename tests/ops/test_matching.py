"""Matching in C, torch and Triton against the reference, bit for bit.

The Triton form is tested on a GPU. Without a GPU, `test_matching_triton.py` runs this file again through Triton's
interpreter.
"""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from retinanet.config import MatchConfig, ModelConfig
from retinanet.matching import match
from retinanet.model.anchors import AnchorGenerator
from retinanet.ops import matching_torch
from retinanet.ops.matching import match_native, match_torch, match_triton, supports_match_native, triton_matches
from retinanet.types import AnchorTargets, Target
from tests.matching.test_iou_peers import random_cases
from tests.ops import reference
from tests.shared import num_examples

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
FIELDS = ("positive_NA", "ignored_NA", "labels_NA", "boxes_NA4", "matched_NA")


def options(config):
    return {name: getattr(config, name) for name in ("positive_iou", "negative_iou", "low_quality_matches")}


def match_in_c(anchors, targets, config):
    assert supports_match_native(anchors, targets)
    return match_native(anchors, targets, **options(config))


def match_in_torch(anchors, targets, config):
    return match_torch(anchors, targets, **options(config))


def match_in_triton(anchors, targets, config):
    device = torch.device("cpu" if INTERPRETED else "cuda:0")
    result = match_triton(anchors.to(device), [target.to(device) for target in targets], **options(config))
    return AnchorTargets(**{name: getattr(result, name).cpu() for name in FIELDS})


@pytest.fixture(params=["c", "torch", "triton"])
def form(request, monkeypatch):
    if request.param == "triton":
        pytest.importorskip("triton", reason="Triton is not installed")
        if not INTERPRETED:
            if not torch.cuda.is_available():
                pytest.skip("no GPU: test_matching_triton.py runs this test through Triton's interpreter")
            assert triton_matches(torch.device("cuda:0"))
        else:  # the time of the interpreter grows with the number of tiles, not with their size
            monkeypatch.setattr("retinanet.ops.matching_triton.TILE", 1024)
        return match_in_triton
    if INTERPRETED:
        pytest.skip("with TRITON_INTERPRET=1, only the Triton form is tested")
    if request.param == "torch":
        return match_in_torch
    request.getfixturevalue("native")
    return match_in_c


def assert_equal(result, expected):
    for name in FIELDS:
        tensor, other = getattr(result, name), getattr(expected, name)
        assert tensor.dtype == other.dtype, name
        assert torch.equal(tensor.nan_to_num(nan=-7.0), other.nan_to_num(nan=-7.0)), name


def random_boxes(rng, count, kind):
    """Return random boxes: "grid" (many equal IoUs), "anywhere", "huge", or "faults" (no area, inverted, NaN, inf)."""
    grid = kind in {"grid", "faults"}
    corner = torch.randint(-5, 40, (count, 2), generator=rng).float()
    side = torch.randint(1, 30, (count, 2), generator=rng).float()
    if not grid:
        corner, side = corner + torch.rand(count, 2, generator=rng), side * torch.rand(count, 2, generator=rng)
    if kind == "huge":
        corner, side = corner * 1e18, side * 1e18
    boxes = torch.cat([corner, corner + side], 1)
    if kind == "faults" and count:
        for value in (0.0, -3.0, torch.nan, torch.inf, -torch.inf):
            row, column = int(torch.randint(count, (), generator=rng)), int(torch.randint(4, (), generator=rng))
            boxes[row, column] = boxes[row, (column + 2) % 4] + value
    return boxes


def random_target(rng, count, kind):
    return Target(
        boxes_G4=random_boxes(rng, count, kind),
        labels_G=torch.randint(0, 80, (count,), generator=rng),
        crowd_G=torch.rand(count, generator=rng) < 0.15,
    )


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("kind", ["grid", "anywhere", "huge", "faults"])
def test_results_equal_the_reference(form, kind, low_quality):
    """The numbers of anchors are around the sizes of lanes, tiles and blocks. Some images have no boxes."""
    rng = torch.Generator().manual_seed(len(kind))
    positives = low_quality_positives = 0
    # Enough for every number of anchors, also in the fast run. The interpreter needs a third of a second per case.
    cases = 26 if INTERPRETED else num_examples(260)
    for case in range(cases):
        anchors = random_boxes(rng, (1, 2, 15, 16, 17, 63, 64, 65, 300, 1023, 1024, 1025, 2500)[case % 13], kind)
        counts = [(0, 1, 3, 20)[int(torch.randint(4, (), generator=rng))] for _ in range(1 + case % 2)]
        targets = [random_target(rng, count, kind) for count in counts]
        config = MatchConfig(
            positive_iou=(0.5, 0.7, 0.25, 0.0)[case % 4],
            negative_iou=(0.4, 0.1, 0.25, 0.0)[case % 4],
            low_quality_matches=low_quality,
        )
        result = form(anchors, targets, config)
        assert_equal(result, reference.match(anchors, targets, config))
        positives += int(result.positive_NA.sum())
        if low_quality:
            usual = MatchConfig(positive_iou=config.positive_iou, negative_iou=config.negative_iou)
            usual_positive_NA = reference.match(anchors, targets, usual).positive_NA
            low_quality_positives += int((result.positive_NA & ~usual_positive_NA).sum())
    assert positives > 3 * cases
    assert low_quality_positives > (1 if INTERPRETED else 10) or not low_quality


@pytest.mark.slow
def test_10_000_cases_with_ties_equal_the_reference(form):
    """Each call matches 100 cases; every tenth box is a crowd region.

    Triton's slow interpreter runs 2,000 cases and alternates the settings. A GPU runs all cases.
    """
    generator = torch.Generator().manual_seed(3)
    for call in range(20 if INTERPRETED else 100):
        anchors, boxes = random_cases(generator, 100)
        order = torch.arange(len(boxes))
        targets = [Target(boxes_G4=boxes, labels_G=order, crowd_G=order % 10 == 3)]
        for low_quality in (call % 2 == 1,) if INTERPRETED else (False, True):
            config = MatchConfig(low_quality_matches=low_quality)
            assert_equal(form(anchors, targets, config), reference.match(anchors, targets, config))


def network_anchors(width, height):
    config = ModelConfig()
    sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in config.levels]
    return AnchorGenerator(config=config)(sizes, like=torch.zeros(0))[0]


@pytest.mark.slow
def test_network_anchors_with_every_instruction_set_and_number_of_threads(native, threads):
    """An image has 400 objects, more than one chunk of 256, at all feature levels and with equal IoUs."""
    rng = torch.Generator().manual_seed(0)
    anchors = network_anchors(512, 384)
    corner = torch.randint(0, 350, (400, 2), generator=rng).float()
    boxes = torch.cat([corner, corner + torch.randint(4, 300, (400, 2), generator=rng)], 1)
    targets = [
        Target(boxes_G4=boxes, labels_G=torch.arange(400), crowd_G=torch.arange(400) % 50 == 7),
        Target(boxes_G4=boxes[:3], labels_G=torch.arange(3), crowd_G=torch.zeros(3, dtype=torch.bool)),
    ]
    for low_quality in (False, True):
        config = MatchConfig(low_quality_matches=low_quality)
        expected = reference.match(anchors, targets, config)
        assert expected.positive_NA[0].sum() > 2000
        assert_equal(match_in_torch(anchors, targets, config), expected)
        for name in native.instruction_sets():
            with native.use_instruction_set(name):
                for count in (1, 2, 5):
                    threads(count)
                    assert_equal(match_in_c(anchors, targets, config), expected)


def test_strided_tensors_and_other_types_give_equal_results(form):
    rng = torch.Generator().manual_seed(1)
    anchors = random_boxes(rng, 500, "anywhere")
    target = random_target(rng, 6, "grid")
    config = MatchConfig(low_quality_matches=True)
    expected = reference.match(anchors, [target], config)
    columns = anchors.T.contiguous().T
    assert not columns.is_contiguous()
    strided = Target(
        boxes_G4=target.boxes_G4.double().T.contiguous().T,
        labels_G=target.labels_G.int(),
        crowd_G=target.crowd_G.repeat(2)[:6],
    )
    assert_equal(form(columns, [strided], config), expected)


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("pairs", [1, 700, 5000])
def test_chunks_of_images_and_of_anchors_give_equal_results(monkeypatch, pairs, low_quality):
    """Chunks are one pair, a part of an image, or two whole images; the last chunk is smaller."""
    monkeypatch.setattr(matching_torch, "PAIRS_PER_THREAD", pairs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    rng = torch.Generator().manual_seed(7)
    anchors = random_boxes(rng, 101 if pairs > 1 else 12, "grid")
    targets = [random_target(rng, count, "faults") for count in (20, 0, 3, 7, 19)]
    config = MatchConfig(low_quality_matches=low_quality)
    assert_equal(match_in_torch(anchors, targets, config), reference.match(anchors, targets, config))


@pytest.mark.parametrize("pairs", [1, 50, 2**16])
def test_best_anchors(monkeypatch, pairs):
    """The first anchor wins among anchors with equal IoU, also if they are in different chunks."""
    monkeypatch.setattr(matching_torch, "PAIRS_PER_THREAD", pairs)
    anchors = torch.tensor([[20.0, 20, 30, 30], [0, 0, 4, 2], [0, 0, 2, 4], [0, 0, 4, 4]])
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 2], [50, 50, 60, 60], [0, torch.nan, 4, 4]])
    iou, anchor = matching_torch.best_anchors(anchors, boxes)
    assert iou.tolist() == [1.0, 0.5, 0.0, 0.0]
    assert anchor.tolist() == [3, 1, 0, 0]
    assert [len(part) for part in matching_torch.best_anchors(anchors, boxes[:0])] == [0, 0]


def test_float64_anchors_use_the_torch_form():
    anchors = random_boxes(torch.Generator().manual_seed(2), 50, "grid").double()
    target = random_target(torch.Generator().manual_seed(3), 4, "grid")
    assert not supports_match_native(anchors, [target])
    assert_equal(match(anchors, [target], MatchConfig()), reference.match(anchors, [target], MatchConfig()))


def test_matching_without_anchors(form):
    target = random_target(torch.Generator().manual_seed(4), 4, "grid")
    result = form(torch.zeros(0, 4), [target], MatchConfig(low_quality_matches=True))
    assert result.boxes_NA4.shape == (1, 0, 4)


def _match_to_lists(case):
    result = match_in_c(*case, MatchConfig(low_quality_matches=True))
    return [getattr(result, name).tolist() for name in FIELDS]


def _child(case, expected, queue):
    queue.put(_match_to_lists(case) == expected)


def test_concurrent_calls_and_a_forked_child(native):
    rng = torch.Generator().manual_seed(5)
    cases = [(random_boxes(rng, 5_000, "anywhere"), [random_target(rng, 40, "anywhere")]) for _ in range(4)]
    expected = [_match_to_lists(case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(_match_to_lists, cases * 3)) == expected * 3
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child, args=(cases[0], expected[0], queue))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get()
