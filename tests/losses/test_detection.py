"""The sum over a batch: what counts, what does not, and what it is divided by."""

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from retinanet.boxes import decode, encode
from retinanet.config import LossConfig
from retinanet.losses import DetectionLoss
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
    """Labels by index against one-hot targets: batch / 3 positives, or the mean of image 0 / 1 and image 1 / 2."""
    out = outputs()
    one_hot = torch.zeros(2, 4, 3)
    one_hot[0, 0, 2] = one_hot[1, 0, 1] = one_hot[1, 2, 0] = 1
    each = torchvision_focal(out.logits_NAK, one_hot, alpha=0.75, gamma=2) * ~TWO.ignored_NA[..., None]
    per_image = each.sum((1, 2))
    expected = per_image.sum() / 3 if normaliser == "batch" else (per_image[0] + per_image[1] / 2) / 2
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


@pytest.mark.parametrize("loss", ["focal", "ce", "balanced_ce", "weighted", "quality_focal", "varifocal"])
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
    """All logits 0, so p = 0.5: CE ln 2 for each of 24; alpha 0.75: 0.75 ln 2 x 1 + 0.25 ln 2 x 23; focal a quarter.

    Weighted: 1 + 23 / 2 = 12.5 times ln 2. Mining, 3:1 an image: 4 anchors of 3 classes each where the positive is,
    and 3 of the 4 anchors of the other image (as for one positive): 21 ln 2.
    """
    out = outputs(logits=torch.zeros(2, 4, 3))
    one = targets([[True, False, False, False], [False] * 4])
    ln2 = math.log(2)
    cases = {"ce": 24, "balanced_ce": 6.5, "focal": 6.5 / 4, "weighted": 12.5, "hard_negative_mining": 21, "ohem": 24}
    for loss, times in cases.items():
        expected = times * ln2
        found = DetectionLoss(config=LossConfig(loss=loss))(out, one).classification
        assert found.item() == pytest.approx(expected), loss


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


def test_quality_losses_aim_at_the_iou_of_the_predicted_box():
    """The anchor (0, 0, 10, 10) predicts its own box; the object is (1, 0, 11, 10): IoU 90 / 110. Logit 0, p = 0.5.

    Quality focal: (9/11 - 1/2)^2 ln 2 for it, (1/2)^2 ln 2 for each of the other 11. Varifocal: 9/11 ln 2, and
    0.75 (1/2)^2 ln 2 each. No gradient reaches the boxes through the target.
    """
    out = outputs(N=1, logits=torch.zeros(1, 4, 3))
    out = HeadOutputs(
        logits_NAK=out.logits_NAK,
        deltas_NA4=torch.zeros(1, 4, 4, requires_grad=True),
        anchors_A4=ANCHORS,
        anchors_per_level=(4,),
    )
    one = targets([[True, False, False, False]])
    one.boxes_NA4[0, 0] = torch.tensor([1.0, 0, 11, 10])
    ln2, quality = math.log(2), 9 / 11
    quality_focal = DetectionLoss(config=LossConfig(loss="quality_focal"))(out, one).classification
    assert quality_focal.item() == pytest.approx(ln2 * ((quality - 0.5) ** 2 + 11 / 4))
    varifocal = DetectionLoss(config=LossConfig(loss="varifocal"))(out, one).classification
    assert varifocal.item() == pytest.approx(ln2 * (quality + 11 * 0.75 / 4))
    (gradient,) = torch.autograd.grad(quality_focal + varifocal, out.deltas_NA4, allow_unused=True)
    assert gradient is None or (gradient == 0).all()


@pytest.mark.parametrize("loss", ["focal", "balanced_ce"])
def test_an_alpha_for_each_class(loss):
    """Equal alphas are the one alpha; different ones weigh each class's column as if it were alone."""
    out = outputs()
    single = DetectionLoss(config=LossConfig(loss=loss, alpha=0.6)).classification_NAK(out, TWO)
    equal = DetectionLoss(config=LossConfig(loss=loss, class_alpha=(0.6,) * 3)).classification_NAK(out, TWO)
    torch.testing.assert_close(single, equal)
    mixed = DetectionLoss(config=LossConfig(loss=loss, class_alpha=(0.2, 0.6, 0.9))).classification_NAK(out, TWO)
    for k, alpha in enumerate((0.2, 0.6, 0.9)):
        alone = DetectionLoss(config=LossConfig(loss=loss, alpha=alpha)).classification_NAK(out, TWO)
        torch.testing.assert_close(mixed[..., k], alone[..., k])


def test_label_smoothing_touches_the_positives_alone():
    """Target 0.9 for the positive: -0.9 log p - 0.1 log(1 - p) at p = 0.5 is ln 2 still, at logit 2 it is more."""
    out = outputs(logits=torch.full((2, 4, 3), 2.0))
    one = targets([[True, False, False, False], [False] * 4])
    plain = DetectionLoss(config=LossConfig(loss="ce")).classification_NAK(out, one)
    smooth = DetectionLoss(config=LossConfig(loss="ce", label_smoothing=0.1)).classification_NAK(out, one)
    changed = (plain != smooth).nonzero().tolist()
    assert changed == [[0, 0, 0]]
    assert (smooth - plain)[0, 0, 0].item() == pytest.approx(0.1 * 2), "0.1 (softplus(2) - softplus(-2))"


@pytest.mark.parametrize("loss", ["hard_negative_mining", "ohem"])
def test_mining_drops_the_easy_anchors_and_their_gradient(loss):
    logits = torch.full((1, 4, 3), -6.0)
    logits[0, 3] = 6.0
    out = outputs(N=1, logits=logits)
    config = LossConfig(loss=loss, negatives_per_positive=1, ohem_examples=2)
    found = DetectionLoss(config=config)(out, targets([[True, False, False, False]]))
    found.classification.backward()
    moved = (out.logits_NAK.grad != 0).any(dim=2)[0].tolist()
    assert moved == [True, False, False, True], "the positive, and the one negative that is taken for an object"
