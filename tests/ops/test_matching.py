"""Matching in C and in torch against the plain rules, bit for bit."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from retinanet.config import MatchConfig, ModelConfig
from retinanet.matching import match
from retinanet.model.anchors import AnchorGenerator
from retinanet.ops.matching import match_native, match_torch, supports_match_native
from retinanet.types import Target
from tests.ops import plain
from tests.shared import examples

FIELDS = ("positive_NA", "ignored_NA", "labels_NA", "boxes_NA4", "matched_NA")


def options(config):
    return {name: getattr(config, name) for name in ("positive_iou", "negative_iou", "low_quality_matches")}


def in_c(anchors, targets, config):
    assert supports_match_native(anchors, targets)
    return match_native(anchors, targets, **options(config))


def in_torch(anchors, targets, config):
    return match_torch(anchors, targets, **options(config))


@pytest.fixture(params=["c", "torch"])
def way(request):
    if request.param == "torch":
        return in_torch
    request.getfixturevalue("native")
    return in_c


def same(found, expected):
    for name in FIELDS:
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours.nan_to_num(nan=-7.0), theirs.nan_to_num(nan=-7.0)), name


def some_boxes(rng, count, kind):
    """On a grid (ties abound), anywhere, huge, or with faults: no area, inverted, NaN, infinite."""
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


def some_target(rng, count, kind):
    return Target(
        boxes_G4=some_boxes(rng, count, kind),
        labels_G=torch.randint(0, 80, (count,), generator=rng),
        crowd_G=torch.rand(count, generator=rng) < 0.15,
    )


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("kind", ["grid", "anywhere", "huge", "faults"])
def test_equals_the_plain_rules(way, kind, low_quality):
    """Random cases of all sizes around those of lanes, tiles and blocks, one or two images, also without boxes."""
    rng = torch.Generator().manual_seed(len(kind))
    positives = low = 0
    cases = examples(260)  # every number of anchors in the fast run, too
    for case in range(cases):
        anchors = some_boxes(rng, (1, 2, 15, 16, 17, 63, 64, 65, 300, 1023, 1024, 1025, 2500)[case % 13], kind)
        counts = [(0, 1, 3, 20)[int(torch.randint(4, (), generator=rng))] for _ in range(1 + case % 2)]
        targets = [some_target(rng, count, kind) for count in counts]
        config = MatchConfig(
            positive_iou=(0.5, 0.7, 0.25, 0.0)[case % 4],
            negative_iou=(0.4, 0.1, 0.25, 0.0)[case % 4],
            low_quality_matches=low_quality,
        )
        found = way(anchors, targets, config)
        same(found, plain.match(anchors, targets, config))
        positives += int(found.positive_NA.sum())
        if low_quality:
            usual = MatchConfig(positive_iou=config.positive_iou, negative_iou=config.negative_iou)
            low += int((found.positive_NA & ~plain.match(anchors, targets, usual).positive_NA).sum())
    assert positives > 3 * cases
    assert low > 10 or not low_quality


def grid_anchors(width, height):
    config = ModelConfig()
    sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in config.levels]
    return AnchorGenerator(config=config)(sizes, like=torch.zeros(0))[0]


@pytest.mark.slow
def test_real_anchors_every_instruction_set_any_number_of_threads(native, threads):
    """400 objects in an image, more than one chunk of 256: touching tiles of all levels, ties by symmetry."""
    rng = torch.Generator().manual_seed(0)
    anchors = grid_anchors(512, 384)
    corner = torch.randint(0, 350, (400, 2), generator=rng).float()
    boxes = torch.cat([corner, corner + torch.randint(4, 300, (400, 2), generator=rng)], 1)
    targets = [
        Target(boxes_G4=boxes, labels_G=torch.arange(400), crowd_G=torch.arange(400) % 50 == 7),
        Target(boxes_G4=boxes[:3], labels_G=torch.arange(3), crowd_G=torch.zeros(3, dtype=torch.bool)),
    ]
    for low_quality in (False, True):
        config = MatchConfig(low_quality_matches=low_quality)
        expected = plain.match(anchors, targets, config)
        assert expected.positive_NA[0].sum() > 2000
        same(in_torch(anchors, targets, config), expected)
        for name in native.instruction_sets():
            with native.use_instruction_set(name):
                for count in (1, 2, 5):
                    threads(count)
                    same(in_c(anchors, targets, config), expected)


def test_other_layouts_and_types(way):
    rng = torch.Generator().manual_seed(1)
    anchors = some_boxes(rng, 500, "anywhere")
    target = some_target(rng, 6, "grid")
    config = MatchConfig(low_quality_matches=True)
    expected = plain.match(anchors, [target], config)
    columns = anchors.T.contiguous().T
    assert not columns.is_contiguous()
    strided = Target(
        boxes_G4=target.boxes_G4.double().T.contiguous().T,
        labels_G=target.labels_G.int(),
        crowd_G=target.crowd_G.repeat(2)[:6],
    )
    found = way(columns, [strided], config)
    same(found, expected)


def test_float64_takes_the_torch_path():
    anchors = some_boxes(torch.Generator().manual_seed(2), 50, "grid").double()
    target = some_target(torch.Generator().manual_seed(3), 4, "grid")
    assert not supports_match_native(anchors, [target])
    same(match(anchors, [target], MatchConfig()), plain.match(anchors, [target], MatchConfig()))


def test_no_anchor_at_all(way):
    target = some_target(torch.Generator().manual_seed(4), 4, "grid")
    found = way(torch.zeros(0, 4), [target], MatchConfig(low_quality_matches=True))
    assert found.boxes_NA4.shape == (1, 0, 4)


def _found(case):
    found = in_c(*case, MatchConfig(low_quality_matches=True))
    return [getattr(found, name).tolist() for name in FIELDS]


def _child(case, expected, queue):
    queue.put(_found(case) == expected)


def test_threads_at_once_and_a_forked_child(native):
    rng = torch.Generator().manual_seed(5)
    cases = [(some_boxes(rng, 5_000, "anywhere"), [some_target(rng, 40, "anywhere")]) for _ in range(4)]
    expected = [_found(case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(_found, cases * 3)) == expected * 3
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_child, args=(cases[0], expected[0], queue))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get()
