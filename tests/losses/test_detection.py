"""The sum over a batch: what counts, what does not, and what it is divided by."""

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from retinanet.boxes import decode, encode
from retinanet.config import LossConfig
from retinanet.losses import DetectionLoss, giou_loss, l1_loss, smooth_l1_loss
from retinanet.types import AnchorTargets, HeadOutputs

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 30, 10], [0, 10, 10, 20], [5, 5, 25, 45]])


def outputs(N=2, K=3, seed=0, logits=None):
    generator = torch.Generator().manual_seed(seed)
    A = len(ANCHORS)
    random = torch.randn(N, A, K, generator=generator) if logits is None else logits
    return HeadOutputs(
        logits_NAK=random.clone().requires_grad_(),
        deltas_NA4=torch.randn(N, A, 4, generator=generator).requires_grad_(),
        anchors_A4=ANCHORS,
        anchors_per_level=(A,),
    )


def targets(positive, ignored=None, labels=None):
    positive = torch.tensor(positive)
    boxes = (ANCHORS + torch.tensor([1.0, 2, 4, 3])).expand(*positive.shape, 4) * positive[..., None]
    return AnchorTargets(
        positive_NA=positive,
        ignored_NA=torch.tensor(ignored) if ignored else torch.zeros_like(positive),
        labels_NA=torch.tensor(labels) if labels else torch.zeros_like(positive, dtype=torch.int64),
        boxes_NA4=boxes,
        matched_NA=torch.zeros_like(positive, dtype=torch.int64),
    )


TWO = targets(
    [[True, False, False, False], [True, False, True, False]],
    [[False, True, False, False], [False, False, False, True]],
    [[2, 0, 0, 0], [1, 0, 0, 0]],
)


@pytest.mark.parametrize("normaliser", ["batch", "image"])
def test_equals_one_hot_and_torchvisions_focal(normaliser):
    """Labels by index against one-hot targets: batch / 3 positives, or the mean of picture 0 / 1 and picture 1 / 2."""
    out = outputs()
    one_hot = torch.zeros(2, 4, 3)
    one_hot[0, 0, 2] = one_hot[1, 0, 1] = one_hot[1, 2, 0] = 1
    each = torchvision_focal(out.logits_NAK, one_hot, alpha=0.75, gamma=2) * ~TWO.ignored_NA[..., None]
    per_picture = each.sum((1, 2))
    expected = per_picture.sum() / 3 if normaliser == "batch" else (per_picture[0] + per_picture[1] / 2) / 2
    (gradient,) = torch.autograd.grad(expected, out.logits_NAK, retain_graph=True)
    losses = DetectionLoss(config=LossConfig(normaliser=normaliser))(out, TWO)
    (found,) = torch.autograd.grad(losses.classification, out.logits_NAK, retain_graph=True)
    torch.testing.assert_close(losses.classification, expected)
    torch.testing.assert_close(found, gradient)
    assert losses.num_positives == 3
    assert (found[0, 1] == 0).all(), "an ignored anchor learns nothing"
    assert (found[0, 2] != 0).all(), "a negative one does"


def test_ignored_anchors_weigh_nothing_whatever_they_say():
    logits = outputs().logits_NAK.detach().clone()
    reference = DetectionLoss(config=LossConfig())(outputs(logits=logits), TWO)
    logits[0, 1] = 1e4
    assert DetectionLoss(config=LossConfig())(outputs(logits=logits), TWO).classification == reference.classification


@pytest.mark.parametrize("loss", ["focal", "ce", "balanced_ce"])
@pytest.mark.parametrize("normaliser", ["batch", "image"])
@pytest.mark.parametrize("box_loss", ["smooth_l1", "l1", "giou"])
def test_no_object_at_all_is_finite_with_a_gradient(loss, normaliser, box_loss):
    """Divided by 1: the negatives still teach, the boxes have nothing to learn; both keep their graph."""
    out = outputs()
    config = LossConfig(loss=loss, normaliser=normaliser, box_loss=box_loss)
    losses = DetectionLoss(config=config)(out, targets([[False] * 4] * 2))
    assert losses.box == 0
    assert losses.classification > 0
    losses.total.backward()
    assert (out.logits_NAK.grad != 0).all()
    assert (out.deltas_NA4.grad == 0).all()


def test_choice_of_loss_by_hand():
    """All logits 0, so p = 0.5: CE ln 2 for each of 24; alpha 0.75: 0.75 ln 2 x 1 + 0.25 ln 2 x 23; focal a quarter."""
    out = outputs(logits=torch.zeros(2, 4, 3))
    one = targets([[True, False, False, False], [False] * 4])
    ln2 = math.log(2)
    for loss, expected in (("ce", 24 * ln2), ("balanced_ce", 6.5 * ln2), ("focal", 6.5 * ln2 / 4)):
        found = DetectionLoss(config=LossConfig(loss=loss))(out, one).classification
        assert found.item() == pytest.approx(expected), loss


def test_box_losses_by_hand():
    """Anchor 10 x 10 and box shifted by 1 in x: dx = 0.1. L1 0.1; smooth L1 (beta 1/9): 0.5 x 0.01 x 9 = 0.045.

    Offsets 0 against dx 1 (box shifted by 10): L1 1, smooth L1 1 - 1/18; GIoU: IoU 0, hull full, loss 1.
    """
    anchors = ANCHORS[:1].expand(2, 4)
    boxes = anchors + torch.tensor([[1.0, 0, 1, 0], [10, 0, 10, 0]])
    zero = torch.zeros(2, 4)
    torch.testing.assert_close(l1_loss(zero, boxes, anchors), torch.tensor([0.1, 1.0]))
    torch.testing.assert_close(smooth_l1_loss(zero, boxes, anchors, beta=1 / 9), torch.tensor([0.045, 1 - 1 / 18]))
    torch.testing.assert_close(giou_loss(zero, boxes, anchors), torch.tensor([1 - 90 / 110, 1.0]))


@pytest.mark.parametrize("name", ["smooth_l1", "l1", "giou"])
def test_box_loss_is_not_zero_and_pulls_towards_the_box(name):
    """Gradient descent on the offsets alone reaches the matched boxes."""
    out = outputs(N=1)
    one = targets([[True, True, False, True]])
    deltas = out.deltas_NA4.detach().clone().requires_grad_()
    criterion = DetectionLoss(config=LossConfig(box_loss=name))
    optimizer = torch.optim.Adam([deltas], lr=0.05)
    first = None
    for _ in range(400):
        current = HeadOutputs(
            logits_NAK=out.logits_NAK.detach(), deltas_NA4=deltas, anchors_A4=ANCHORS, anchors_per_level=(4,)
        )
        loss = criterion(current, one).box
        first = first if first is not None else loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first > 0.1
    boxes = decode(deltas.detach()[0], ANCHORS)
    for a in (0, 1, 3):
        torch.testing.assert_close(boxes[a], one.boxes_NA4[0, a], atol=1.0, rtol=0)
    assert encode(one.boxes_NA4[0, :1], ANCHORS[:1]).abs().sum() > 0


def test_the_box_weight_is_applied_once():
    out = outputs()
    losses = DetectionLoss(config=LossConfig(box_loss_weight=3))(out, TWO)
    torch.testing.assert_close(losses.total, losses.classification + 3 * losses.box)


def test_half_precision_outputs_give_a_float32_loss():
    out = outputs()
    half = HeadOutputs(
        logits_NAK=out.logits_NAK.bfloat16(),
        deltas_NA4=out.deltas_NA4.bfloat16(),
        anchors_A4=ANCHORS,
        anchors_per_level=(4,),
    )
    losses = DetectionLoss(config=LossConfig())(half, TWO)
    assert losses.total.dtype == losses.box.dtype == torch.float32
    torch.testing.assert_close(losses.total, DetectionLoss(config=LossConfig())(out, TWO).total, rtol=0.02, atol=0.02)
