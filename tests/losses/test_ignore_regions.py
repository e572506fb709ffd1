"""Ignore regions: the background in a region adds nothing to any loss, with every assigner, in C and in plain torch."""

import pytest
import torch

from retinanet.boxes import area, intersection
from retinanet.config import ASSIGNERS, LOSSES, LossConfig, MatchConfig
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.ops import native_library
from retinanet.types import HeadOutputs, Target

K = 3
OBJECT, REGION = [8.0, 8, 44, 44], [64.0, 64, 128, 128]
NATIVE = (
    *("retinanet.ops.matching.supports_match_native", "retinanet.ops.atss.supports_atss_native"),
    *("retinanet.ops.task_aligned.supports_task_aligned_native", "retinanet.ops.native_library.available"),
)


def grid_anchors():
    """Return anchors of the sides 16 and 32 at all centres of a grid of 8 pixels in an image of 128 x 128 pixels."""
    place = torch.arange(4.0, 128, 8)
    centre = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1).reshape(-1, 2)
    return torch.cat([torch.cat([centre - side / 2, centre + side / 2], dim=1) for side in (16, 32)])


ANCHORS = grid_anchors()
IN_REGION = intersection(ANCHORS, torch.tensor(REGION)) >= 0.5 * area(ANCHORS)
"""Anchors with at least half of their area in the region."""


def ground_truth(*, regions):
    """Return an object of class 1, and an ignore region with one row for each of the first `regions` classes."""
    return Target(
        boxes_G4=torch.tensor([OBJECT] + [REGION] * regions),
        labels_G=torch.tensor([1, *range(regions)]),
        crowd_G=torch.tensor([False] + [True] * regions),
    )


def outputs(logits):
    generator = torch.Generator().manual_seed(1)
    return HeadOutputs(
        logits_NAK=logits.clone().requires_grad_(),
        deltas_NA4=(torch.randn(1, len(ANCHORS), 4, generator=generator) / 10).requires_grad_(),
        anchors_A4=ANCHORS,
        anchors_per_level=(len(ANCHORS) // 2,) * 2,
    )


def losses_of(loss, assigner, logits, *, regions):
    """Return the losses, the outputs and the targets of the anchors."""
    out = outputs(logits)
    targets = make_assigner(MatchConfig(assigner=assigner)).assign(out, [ground_truth(regions=regions)])
    return DetectionLoss(config=LossConfig(loss=loss))(out, targets), out, targets


@pytest.fixture(params=["C", "torch"])
def _form(request, monkeypatch):
    """Use the C forms of the assigners and losses, or the plain forms."""
    if request.param == "C" and not native_library.available():
        pytest.skip("needs the C library")
    if request.param == "torch":
        for name in NATIVE:
            monkeypatch.setattr(name, lambda *_: False)


@pytest.mark.usefixtures("_form")
@pytest.mark.parametrize("assigner", sorted(ASSIGNERS))
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_anchors_in_a_region_add_nothing_to_the_loss(loss, assigner):
    """Confident scores in the region change no loss and get no gradient. Without the region they raise the loss."""
    logits = torch.randn(1, len(ANCHORS), K, generator=torch.Generator().manual_seed(0)) - 2
    confident = logits.clone()
    confident[0, IN_REGION] = 9.0
    quiet, _, targets = losses_of(loss, assigner, logits, regions=K)
    loud, out, _ = losses_of(loss, assigner, confident, regions=K)
    loud.total.backward()
    assert IN_REGION.sum() > 100
    assert targets.ignored_NA[0, IN_REGION].all()
    assert not targets.positive_NA[0, IN_REGION].any()
    assert targets.positive_NA.any()
    assert torch.equal(loud.total, quiet.total)
    assert (out.logits_NAK.grad[0, IN_REGION] == 0).all()
    assert (out.deltas_NA4.grad[0, IN_REGION] == 0).all()
    assert (out.logits_NAK.grad[0, ~IN_REGION] != 0).any()
    punished, out, _ = losses_of(loss, assigner, confident, regions=0)
    punished.total.backward()
    # GHM-C divides by the number of examples of equal difficulty, so that many hard negatives add little.
    assert punished.total > (1.0 if loss == "ghm_c" else 2.0) * quiet.total
    assert (out.logits_NAK.grad[0, IN_REGION] != 0).any()


@pytest.mark.usefixtures("_form")
@pytest.mark.parametrize("assigner", sorted(ASSIGNERS))
def test_a_region_with_a_row_for_each_class_is_one_region(assigner):
    logits = torch.randn(1, len(ANCHORS), K, generator=torch.Generator().manual_seed(0))
    (one, _, of_one), (every, _, of_every) = (
        losses_of("focal", assigner, logits, regions=regions) for regions in (1, K)
    )
    assert torch.equal(of_one.ignored_NA, of_every.ignored_NA)
    assert torch.equal(one.total, every.total)
