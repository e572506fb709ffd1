"""Task-aligned assignment in both forms against the reference, bit for bit, and its kernels on a device."""

import pytest
import torch

from retinanet.config import MatchConfig
from retinanet.ops import task_aligned_torch as torch_form
from retinanet.ops.task_aligned import task_aligned
from retinanet.ops.task_aligned_native import supports_task_aligned_native, task_aligned_native
from retinanet.ops.task_aligned_torch import task_aligned_torch
from retinanet.types import Target
from tests.device_double import double, to_cpu, to_double
from tests.ops import reference
from tests.ops.test_matching import assert_equal, network_anchors, random_boxes, random_target
from tests.shared import num_examples


def random_case(rng, kind, *, images=2):
    """Return anchors, targets, logits of 80 classes and predicted boxes. Every third case predicts the anchors."""
    A = int(torch.randint(1, 60, (), generator=rng))
    anchors = random_boxes(rng, A, "anywhere" if kind == "anywhere" else "grid")
    targets = [random_target(rng, (0, 1, 3, 8)[int(torch.randint(4, (), generator=rng))], kind) for _ in range(images)]
    logits = torch.randint(-3, 3, (images, A, 80), generator=rng).float()
    predicted = anchors.expand(images, A, 4).clone()
    if A % 3:
        predicted = predicted + torch.randint(-2, 3, (images, A, 4), generator=rng)
    return anchors, targets, logits, predicted


def assign(anchors, targets, logits, predicted, config, *, form=task_aligned):
    return form(
        anchors,
        targets,
        predicted_NA4=predicted,
        logits_NAK=logits,
        crowd_share=config.positive_iou,
        low_quality_matches=config.low_quality_matches,
    )


@pytest.fixture(params=["c", "torch"])
def form(request):
    if request.param == "torch":
        return task_aligned_torch
    request.getfixturevalue("native")
    return task_aligned_native


def compare_with_the_reference(forms, kinds, cases):
    rng = torch.Generator().manual_seed(cases)
    positives = fallbacks = 0
    for case in range(cases):
        anchors, targets, logits, predicted = random_case(rng, kinds[case % len(kinds)])
        config = MatchConfig(positive_iou=(0.5, 0.25)[case % 2], negative_iou=0.0, low_quality_matches=case % 3 == 0)
        expected = reference.task_aligned(anchors, logits, predicted, targets, config)
        for form in forms:
            assert_equal(assign(anchors, targets, logits, predicted, config, form=form), expected)
        positives += int(expected.positive_NA.sum())
        if config.low_quality_matches:
            usual = assign(anchors, targets, logits, predicted, MatchConfig())
            fallbacks += int((expected.positive_NA & ~usual.positive_NA).sum())
    assert positives > cases
    assert fallbacks > cases / 20


@pytest.mark.parametrize("kind", ["grid", "anywhere", "faults"])
def test_results_equal_the_reference(form, kind):
    compare_with_the_reference([form], [kind], num_examples(100))


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_10_000_cases_equal_the_reference():
    """Integer coordinates and logits give equal metrics. Boxes lie outside, have 1 pixel, or contain NaN."""
    forms = [task_aligned_native, task_aligned_torch]
    compare_with_the_reference(forms, ["grid", "anywhere", "faults", "grid", "huge"], 10_000)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("logits", ["float32", "bfloat16", "none"])
def test_the_c_form_equals_the_torch_form_at_the_size_of_a_network(threads, logits):
    rng = torch.Generator().manual_seed(4)
    anchors = network_anchors(256, 192)
    targets = [random_target(rng, count, "anywhere") for count in (40, 0, 7)]
    scores = None
    if logits != "none":
        scores = (3 * torch.randn(3, len(anchors), 80, generator=rng)).to(getattr(torch, logits))
    predicted = anchors + 4 * torch.randn(3, len(anchors), 4, generator=rng)
    config = MatchConfig(low_quality_matches=True)
    expected = assign(anchors, targets, scores, predicted, config, form=task_aligned_torch)
    assert expected.positive_NA.sum() > 100
    for count in (1, 3):
        threads(count)
        assert supports_task_aligned_native(anchors, targets, predicted, scores)
        assert_equal(assign(anchors, targets, scores, predicted, config, form=task_aligned_native), expected)


@pytest.mark.slow
def test_every_instruction_set_and_number_of_threads(native, threads):
    rng = torch.Generator().manual_seed(5)
    for case in range(20):
        anchors, targets, logits, predicted = random_case(rng, ("grid", "anywhere", "faults")[case % 3], images=4)
        config = MatchConfig(low_quality_matches=case % 2 == 0)
        expected = reference.task_aligned(anchors, logits, predicted, targets, config)
        for name in native.instruction_sets():
            with native.use_instruction_set(name):
                for count in (1, 2, 5):
                    threads(count)
                    found = assign(anchors, targets, logits, predicted, config, form=task_aligned_native)
                    assert_equal(found, expected)


@pytest.mark.usefixtures("native")
def test_a_class_id_without_a_logit_is_refused():
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    target = Target(boxes_G4=box, labels_G=torch.tensor([3]), crowd_G=torch.tensor([False]))
    with pytest.raises(ValueError, match=r"class id outside 0\.\.K-1"):
        assign(box, [target], torch.zeros(1, 1, 3), box[None], MatchConfig(), form=task_aligned_native)


@pytest.mark.parametrize("pairs", [1, 100, 700, 10_000])
def test_the_batched_form_gives_equal_results(monkeypatch, pairs):
    """Chunks are one box, some boxes of an image, or whole images."""
    monkeypatch.setattr(torch_form, "PAIRS", pairs)
    rng = torch.Generator().manual_seed(2)
    for case in range(num_examples(20)):
        anchors, targets, logits, predicted = random_case(rng, ("grid", "faults")[case % 2], images=4)
        logits = logits + torch.rand(logits.shape, generator=rng)
        config = MatchConfig(low_quality_matches=case % 3 == 0)
        with double() as count:
            result = assign(*to_double([anchors, targets, logits, predicted]), config)
        assert count.syncs == 0
        assert_equal(to_cpu(result), assign(anchors, targets, logits, predicted, config))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_predictions_that_are_not_finite_get_no_positives(value):
    """Training that diverges must not stop in the assigner, because the check for NaN names the cause."""
    rng = torch.Generator().manual_seed(3)
    anchors, targets, logits, predicted = random_case(rng, "grid")
    targets = [random_target(rng, 5, "grid") for _ in targets]
    result = assign(anchors, targets, logits, torch.full_like(predicted, value), MatchConfig(low_quality_matches=True))
    assert not result.positive_NA.any()
    result = assign(anchors, targets, torch.full_like(logits, torch.nan), predicted, MatchConfig())
    assert not result.positive_NA.any()


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("counts", [(10, 10), (0, 0), (3, 0, 50, 7, 1, 1, 0, 9)])
def test_kernels_on_a_device_do_not_depend_on_images_and_boxes(counts, low_quality):
    rng = torch.Generator().manual_seed(0)
    anchors = network_anchors(160, 128)
    targets = [random_target(rng, count, "anywhere") for count in counts]
    logits = torch.randn(len(counts), len(anchors), 80, generator=rng)
    predicted = anchors + torch.randn(len(counts), len(anchors), 4, generator=rng)
    config = MatchConfig(low_quality_matches=low_quality)
    with double() as count:
        result = assign(*to_double([anchors, targets, logits, predicted]), config)
    assert (count.kernels, count.syncs, count.transfers) == (157 if low_quality else 125, 0, 0), count
    assert_equal(to_cpu(result), assign(anchors, targets, logits, predicted, config))
