"""ATSS in all forms against the reference, bit for bit, and the positions of a level."""

import pytest
import torch

from retinanet.config import MatchConfig, ModelConfig
from retinanet.matching import make_assigner
from retinanet.model.anchors import AnchorGenerator
from retinanet.ops import atss_torch
from retinanet.ops.atss import atss, level_positions
from retinanet.ops.atss_native import atss_native, supports_atss_native
from retinanet.types import Target
from tests.device_double import double, to_cpu, to_double
from tests.ops import reference
from tests.ops.test_matching import assert_equal, network_anchors, random_boxes, random_target
from tests.shared import num_examples


def random_levels(rng, kind):
    """Return random anchors of 1 to 3 levels, the number of anchors of each level, and of each position.

    The positions of a level form a grid with a stride of 4, 8 or 16, and each has 1 to 3 anchors of random sizes.
    """
    levels, per_level, per_position = [], [], []
    for level in range(int(torch.randint(1, 4, (), generator=rng))):
        height, width, C = (int(torch.randint(1, limit, (), generator=rng)) for limit in (6, 6, 4))
        side = torch.randint(1, 30, (C, 2), generator=rng).float()
        if kind != "grid":
            side = side + torch.rand(C, 2, generator=rng)
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centre = torch.stack([x, y], dim=-1).reshape(-1, 1, 2) * float(4 * 2**level)
        levels.append(torch.cat([centre - side / 2, centre + side / 2], dim=2).reshape(-1, 4))
        per_level.append(height * width * C)
        per_position.append(C)
    return torch.cat(levels), tuple(per_level), tuple(per_position)


def settings(case, low_quality):
    return MatchConfig(
        assigner="atss",
        atss_candidates=(9, 1, 3, 100)[case % 4],
        positive_iou=(0.5, 0.7, 0.25)[case % 3],
        negative_iou=0.0,
        low_quality_matches=low_quality,
    )


def in_torch(anchors, targets, config, per_level, *, form=atss_torch.atss_torch):
    return form(
        anchors,
        targets,
        positions=level_positions(anchors, per_level),
        candidates=config.atss_candidates,
        crowd_share=config.positive_iou,
        low_quality_matches=config.low_quality_matches,
    )


def in_c(anchors, targets, config, per_level):
    assert supports_atss_native(anchors, targets)
    return in_torch(anchors, targets, config, per_level, form=atss_native)


@pytest.fixture(params=["c", "torch"])
def form(request):
    if request.param == "torch":
        return in_torch
    request.getfixturevalue("native")
    return in_c


def compare_with_the_reference(forms, kinds, cases):
    rng = torch.Generator().manual_seed(len(kinds[0]))
    positives = fallbacks = crowds = 0
    for case in range(cases):
        kind = kinds[case % len(kinds)]
        anchors, per_level, per_position = random_levels(rng, kind)
        counts = [(0, 1, 3, 8)[int(torch.randint(4, (), generator=rng))] for _ in range(1 + case % 2)]
        targets = [random_target(rng, count, kind) for count in counts]
        config = settings(case, low_quality=case % 2 == 0)
        result = reference.atss(anchors, targets, config, anchors_per_level=per_level, per_position=per_position)
        for form in forms:
            assert_equal(form(anchors, targets, config, per_level), result)
        positives += int(result.positive_NA.sum())
        crowds += int(result.ignored_NA.sum())
        if config.low_quality_matches:
            usual = forms[0](anchors, targets, settings(case, low_quality=False), per_level)
            fallbacks += int((result.positive_NA & ~usual.positive_NA).sum())
    assert positives > cases / 5
    assert crowds > 0
    assert fallbacks > cases / 20


@pytest.mark.parametrize("kind", ["grid", "anywhere", "faults"])
def test_results_equal_the_reference(form, kind):
    compare_with_the_reference([form], [kind], num_examples(200))


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_10_000_cases_equal_the_reference():
    """Integer coordinates give equal distances and IoUs. Boxes lie outside, have 1 pixel, or contain NaN."""
    compare_with_the_reference([in_torch, in_c], ["grid", "anywhere", "faults", "grid", "huge"], 10_000)


def test_anchors_of_a_network_equal_the_reference(form):
    """Centres of anchors, computed from rounded corners, differ in their last bits."""
    rng = torch.Generator().manual_seed(0)
    config = ModelConfig(anchor_ratios=(0.3, 1.0, 2.7))
    sizes = [(-(-192 // 2**level), -(-256 // 2**level)) for level in config.levels]
    anchors, per_level = AnchorGenerator(config=config)(sizes, like=torch.zeros(0))
    corner = torch.randint(0, 150, (12, 2), generator=rng).float()
    boxes = torch.cat([corner, corner + torch.randint(1, 90, (12, 2), generator=rng)], 1)
    target = Target(boxes_G4=boxes, labels_G=torch.arange(12), crowd_G=torch.arange(12) == 7)
    for low_quality in (False, True):
        rule = MatchConfig(assigner="atss", low_quality_matches=low_quality)
        expected = reference.atss(anchors, [target], rule, anchors_per_level=per_level, per_position=[9] * 5)
        assert expected.positive_NA.sum() > 200
        assert_equal(form(anchors, [target], rule, per_level), expected)
        assert_equal(make_assigner(rule)(anchors, [target], anchors_per_level=per_level), expected)


@pytest.mark.slow
def test_every_instruction_set_and_number_of_threads(native, threads):
    rng = torch.Generator().manual_seed(5)
    for case in range(20):
        kind = ("grid", "anywhere", "faults")[case % 3]
        anchors, per_level, per_position = random_levels(rng, kind)
        targets = [random_target(rng, count, kind) for count in (8, 0, 3, 20)]
        config = settings(case, low_quality=case % 2 == 0)
        expected = reference.atss(anchors, targets, config, anchors_per_level=per_level, per_position=per_position)
        for name in native.instruction_sets():
            with native.use_instruction_set(name):
                for count in (1, 2, 5):
                    threads(count)
                    assert_equal(in_c(anchors, targets, config, per_level), expected)


def test_the_c_form_refuses_positions_of_another_number_of_anchors(native):
    rng = torch.Generator().manual_seed(6)
    anchors, targets = random_boxes(rng, 6, "grid"), [random_target(rng, 3, "grid")]
    rule = {"candidates": 9, "crowd_share": 0.5, "low_quality_matches": False}
    with pytest.raises(ValueError, match="expected positions of 6 anchors"):
        atss_native(anchors, targets, positions=((7, 1),), **rule)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_float_types_are_compared_in_float32(dtype):
    rng = torch.Generator().manual_seed(1)
    for _ in range(10):
        anchors = random_boxes(rng, 40, "grid").to(dtype)
        targets = [random_target(rng, count, "grid") for count in (5, 0)]
        config = settings(0, low_quality=True)
        result = make_assigner(config)(anchors, targets, anchors_per_level=(40,))
        assert result.boxes_NA4.dtype == dtype
        expected = reference.atss(anchors, targets, config, anchors_per_level=(40,), per_position=(1,))
        assert_equal(result, expected)


@pytest.mark.parametrize("pairs", [1, 50, 1000])
def test_chunks_give_equal_results(monkeypatch, pairs):
    monkeypatch.setattr(atss_torch, "PAIRS_PER_THREAD", pairs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    rng = torch.Generator().manual_seed(2)
    anchors, per_level, per_position = random_levels(rng, "grid")
    targets = [random_target(rng, count, "grid") for count in (8, 0, 3)]
    config = settings(0, low_quality=True)
    expected = reference.atss(anchors, targets, config, anchors_per_level=per_level, per_position=per_position)
    assert_equal(in_torch(anchors, targets, config, per_level), expected)


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("counts", [(10, 10), (100, 100), (0, 0), (3, 0, 50, 7, 1, 1, 0, 9)])
def test_kernels_on_a_device_do_not_depend_on_images_and_boxes(counts, low_quality):
    """The CPU waits once, for the centres of the first anchors of an image size."""
    rng = torch.Generator().manual_seed(0)
    anchors, per_level = network_anchors(320, 256), (9 * 1280, 9 * 320, 9 * 80, 9 * 20, 9 * 6)
    targets = [random_target(rng, count, "anywhere") for count in counts]
    rule = {"anchors_per_level": per_level, "candidates": 9, "crowd_share": 0.5, "low_quality_matches": low_quality}
    on_device, targets_on_device = to_double(anchors), to_double(targets)
    with double() as count:
        level_positions(on_device, per_level)
        assert (count.syncs, count.transfers) == (1, 1)
        count.clear()
        result = atss(on_device, targets_on_device, **rule)
    assert (count.kernels, count.syncs, count.transfers) == (185 if low_quality else 165, 0, 0), count
    assert_equal(to_cpu(result), atss(anchors, targets, **rule))


def test_positions_of_a_level():
    def at(*centres):
        centre_A2 = torch.tensor(centres, dtype=torch.float32)
        return torch.cat([centre_A2 - 3.3, centre_A2 + 3.3], dim=1)

    a, b, c = (0, 0), (8, 0), (16, 0)
    assert level_positions(at(a, a, b, b, c, c), (6,)) == ((3, 2),)
    assert level_positions(at(a, a, b, b, c, c), (4, 2)) == ((2, 2), (1, 2))
    assert level_positions(at(a, b, c), (3,)) == ((3, 1),)
    assert level_positions(at(a, a, b, c, c, c), (6,)) == ((6, 1),), "positions with different numbers of anchors"
    assert level_positions(at(a, a, b), (3,)) == ((3, 1),)
    assert level_positions(at(a, b), (2, 0)) == ((2, 1), (0, 1))
    assert level_positions(torch.zeros(0, 4), (0,)) == ((0, 1),)
    with pytest.raises(ValueError, match=r"add up to the number of anchors, 2, found \(3,\)"):
        level_positions(at(a, b), (3,))


def test_assignment_without_anchors(form):
    target = random_target(torch.Generator().manual_seed(4), 4, "grid")
    result = form(torch.zeros(0, 4), [target], settings(0, low_quality=True), (0,))
    assert result.boxes_NA4.shape == (1, 0, 4)
