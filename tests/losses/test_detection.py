"""`DetectionLoss`: which anchors enter the sum, the normalisation, and each choice of loss."""

import dataclasses
import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from retinanet.boxes import decode, encode
from retinanet.config import LOSSES, LossConfig
from retinanet.losses import DetectionLoss
from retinanet.losses.detection import ImageLosses
from retinanet.types import AnchorTargets, HeadOutputs

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 30, 10], [0, 10, 10, 20], [5, 5, 25, 45]])


def random_outputs(N=2, K=3, seed=0, logits=None):
    generator = torch.Generator().manual_seed(seed)
    A = len(ANCHORS)
    logits = torch.randn(N, A, K, generator=generator) if logits is None else logits
    return HeadOutputs(
        logits_NAK=logits.clone().requires_grad_(),
        deltas_NA4=torch.randn(N, A, 4, generator=generator).requires_grad_(),
        anchors_A4=ANCHORS,
        anchors_per_level=(A,),
    )


def anchor_targets(positive, ignored=None, labels=None):
    positive = torch.tensor(positive)
    boxes = (ANCHORS + torch.tensor([1.0, 2, 4, 3])).expand(*positive.shape, 4) * positive[..., None]
    return AnchorTargets(
        positive_NA=positive,
        ignored_NA=torch.tensor(ignored) if ignored else torch.zeros_like(positive),
        labels_NA=torch.tensor(labels) if labels else torch.zeros_like(positive, dtype=torch.int64),
        boxes_NA4=boxes,
        matched_NA=torch.zeros_like(positive, dtype=torch.int64),
    )


TWO_IMAGES = anchor_targets(
    [[True, False, False, False], [True, False, True, False]],
    [[False, True, False, False], [False, False, False, True]],
    [[2, 0, 0, 0], [1, 0, 0, 0]],
)


@pytest.mark.parametrize("normaliser", ["batch", "image"])
def test_focal_loss_equals_torchvisions_with_one_hot_targets(normaliser):
    """The batch has 3 positives. Per image: the mean of the loss of image 0, divided by 1, and of image 1, by 2."""
    out = random_outputs()
    one_hot = torch.zeros(2, 4, 3)
    one_hot[0, 0, 2] = one_hot[1, 0, 1] = one_hot[1, 2, 0] = 1
    loss_NAK = torchvision_focal(out.logits_NAK, one_hot, alpha=0.75, gamma=2) * ~TWO_IMAGES.ignored_NA[..., None]
    per_image = loss_NAK.sum((1, 2))
    expected = per_image.sum() / 3 if normaliser == "batch" else (per_image[0] + per_image[1] / 2) / 2
    (expected_gradient,) = torch.autograd.grad(expected, out.logits_NAK, retain_graph=True)
    losses = DetectionLoss(config=LossConfig(normaliser=normaliser))(out, TWO_IMAGES)
    (our_gradient,) = torch.autograd.grad(losses.classification, out.logits_NAK, retain_graph=True)
    torch.testing.assert_close(losses.classification, expected)
    torch.testing.assert_close(our_gradient, expected_gradient)
    assert losses.num_positives == 3
    assert (our_gradient[0, 1] == 0).all(), "an ignored anchor has no gradient"
    assert (our_gradient[0, 2] != 0).all(), "a negative anchor has a gradient"


def test_logits_of_ignored_anchors_do_not_change_the_loss():
    logits = random_outputs().logits_NAK.detach().clone()
    reference = DetectionLoss(config=LossConfig())(random_outputs(logits=logits), TWO_IMAGES)
    logits[0, 1] = 1e4
    assert (
        DetectionLoss(config=LossConfig())(random_outputs(logits=logits), TWO_IMAGES).classification
        == reference.classification
    )


@pytest.mark.parametrize("loss", sorted(LOSSES.keys() - {"hard_negative_mining", "ohem"}))
@pytest.mark.parametrize("normaliser", ["batch", "image"])
@pytest.mark.parametrize("box_loss", ["smooth_l1", "l1", "giou"])
def test_a_batch_without_objects_has_a_finite_loss_and_gradient(loss, normaliser, box_loss):
    """The divisor is 1. Negatives have a gradient. The box loss is 0, and its gradient exists and is 0."""
    out = random_outputs()
    config = LossConfig(loss=loss, normaliser=normaliser, box_loss=box_loss)
    losses = DetectionLoss(config=config)(out, anchor_targets([[False] * 4] * 2))
    assert losses.box == 0
    assert losses.classification > 0
    losses.total.backward()
    assert (out.logits_NAK.grad != 0).all()
    assert (out.deltas_NA4.grad == 0).all()


def test_every_classification_loss_gives_a_hand_worked_value():
    """All logits are 0, so p = 0.5 and the cross-entropy of each of 24 examples is ln 2. One example is positive.

    Alpha 0.75: (0.75 x 1 + 0.25 x 23) ln 2. Focal: a quarter of that. Weighted: (1 + 23 / 2) ln 2. Hard negative mining
    keeps 4 anchors of image 0 (1 positive, 3 negatives) and 3 of image 1 (as for one positive): 7 x 3 ln 2.
    """
    out = random_outputs(logits=torch.zeros(2, 4, 3))
    one_positive = anchor_targets([[True, False, False, False], [False] * 4])
    ln2 = math.log(2)
    cases = {"ce": 24, "balanced_ce": 6.5, "focal": 6.5 / 4, "weighted": 12.5, "hard_negative_mining": 21, "ohem": 24}
    for loss, factor in cases.items():
        losses = DetectionLoss(config=LossConfig(loss=loss))(out, one_positive)
        assert losses.classification.item() == pytest.approx(factor * ln2), loss


@pytest.mark.parametrize("name", ["smooth_l1", "l1", "giou"])
def test_minimising_a_box_loss_reaches_the_matched_boxes(name):
    """Gradient descent on the offsets, with the anchors fixed, ends at the matched boxes."""
    out = random_outputs(N=1)
    three_positives = anchor_targets([[True, True, False, True]])
    deltas = out.deltas_NA4.detach().clone().requires_grad_()
    criterion = DetectionLoss(config=LossConfig(box_loss=name))
    optimizer = torch.optim.Adam([deltas], lr=0.05)
    first = None
    for _ in range(400):
        current = HeadOutputs(
            logits_NAK=out.logits_NAK.detach(), deltas_NA4=deltas, anchors_A4=ANCHORS, anchors_per_level=(4,)
        )
        loss = criterion(current, three_positives).box
        first = first if first is not None else loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first > 0.1
    boxes = decode(deltas.detach()[0], ANCHORS)
    for a in (0, 1, 3):
        torch.testing.assert_close(boxes[a], three_positives.boxes_NA4[0, a], atol=1.0, rtol=0)
    assert encode(three_positives.boxes_NA4[0, :1], ANCHORS[:1]).abs().sum() > 0


def test_the_box_loss_weight_multiplies_the_box_loss_once():
    out = random_outputs()
    losses = DetectionLoss(config=LossConfig(box_loss_weight=3))(out, TWO_IMAGES)
    torch.testing.assert_close(losses.total, losses.classification + 3 * losses.box)


def test_half_precision_outputs_give_a_float32_loss():
    out = random_outputs()
    half = HeadOutputs(
        logits_NAK=out.logits_NAK.bfloat16(),
        deltas_NA4=out.deltas_NA4.bfloat16(),
        anchors_A4=ANCHORS,
        anchors_per_level=(4,),
    )
    losses = DetectionLoss(config=LossConfig())(half, TWO_IMAGES)
    assert losses.total.dtype == losses.box.dtype == torch.float32
    torch.testing.assert_close(
        losses.total, DetectionLoss(config=LossConfig())(out, TWO_IMAGES).total, rtol=0.02, atol=0.02
    )


def test_the_target_of_quality_losses_is_the_iou_of_the_predicted_box():
    """The predicted box is (0, 0, 10, 10) and the ground-truth box (1, 0, 11, 10): IoU 90 / 110. All logits are 0.

    Quality focal: (9/11 - 1/2)^2 ln 2 for the positive example, (1/2)^2 ln 2 for each of the other 11. Varifocal:
    9/11 ln 2 for the positive, 0.75 (1/2)^2 ln 2 for each other example. The target gives the offsets no gradient.
    """
    out = random_outputs(N=1, logits=torch.zeros(1, 4, 3))
    out = HeadOutputs(
        logits_NAK=out.logits_NAK,
        deltas_NA4=torch.zeros(1, 4, 4, requires_grad=True),
        anchors_A4=ANCHORS,
        anchors_per_level=(4,),
    )
    one_positive = anchor_targets([[True, False, False, False]])
    one_positive.boxes_NA4[0, 0] = torch.tensor([1.0, 0, 11, 10])
    ln2, quality = math.log(2), 9 / 11
    quality_focal = DetectionLoss(config=LossConfig(loss="quality_focal"))(out, one_positive).classification
    assert quality_focal.item() == pytest.approx(ln2 * ((quality - 0.5) ** 2 + 11 / 4))
    varifocal = DetectionLoss(config=LossConfig(loss="varifocal"))(out, one_positive).classification
    assert varifocal.item() == pytest.approx(ln2 * (quality + 11 * 0.75 / 4))
    (gradient,) = torch.autograd.grad(quality_focal + varifocal, out.deltas_NA4, allow_unused=True)
    assert gradient is None or (gradient == 0).all()


@pytest.mark.parametrize("loss", ["focal", "balanced_ce"])
def test_class_alpha_gives_each_class_its_alpha(loss):
    """Equal class alphas equal a single alpha. With different ones, each class has the loss of its own alpha."""
    out = random_outputs()
    single = DetectionLoss(config=LossConfig(loss=loss, alpha=0.6)).classification_NAK(out, TWO_IMAGES)
    equal = DetectionLoss(config=LossConfig(loss=loss, class_alpha=(0.6,) * 3)).classification_NAK(out, TWO_IMAGES)
    torch.testing.assert_close(single, equal)
    mixed = DetectionLoss(config=LossConfig(loss=loss, class_alpha=(0.2, 0.6, 0.9))).classification_NAK(out, TWO_IMAGES)
    for k, alpha in enumerate((0.2, 0.6, 0.9)):
        alone = DetectionLoss(config=LossConfig(loss=loss, alpha=alpha)).classification_NAK(out, TWO_IMAGES)
        torch.testing.assert_close(mixed[..., k], alone[..., k])


def test_label_smoothing_changes_only_positive_examples():
    """The target of the positive is 0.9: -0.9 log p - 0.1 log(1 - p). At logit 2, the loss rises by 0.1 x 2."""
    out = random_outputs(logits=torch.full((2, 4, 3), 2.0))
    one_positive = anchor_targets([[True, False, False, False], [False] * 4])
    plain = DetectionLoss(config=LossConfig(loss="ce")).classification_NAK(out, one_positive)
    smooth = DetectionLoss(config=LossConfig(loss="ce", label_smoothing=0.1)).classification_NAK(out, one_positive)
    changed = (plain != smooth).nonzero().tolist()
    assert changed == [[0, 0, 0]]
    assert (smooth - plain)[0, 0, 0].item() == pytest.approx(0.1 * 2), "0.1 (softplus(2) - softplus(-2))"


@pytest.mark.parametrize("loss", ["hard_negative_mining", "ohem"])
def test_mining_gives_easy_negatives_no_gradient(loss):
    logits = torch.full((1, 4, 3), -6.0)
    logits[0, 3] = 6.0
    out = random_outputs(N=1, logits=logits)
    config = LossConfig(loss=loss, negatives_per_positive=1, ohem_examples=2)
    losses = DetectionLoss(config=config)(out, anchor_targets([[True, False, False, False]]))
    losses.classification.backward()
    has_gradient = (out.logits_NAK.grad != 0).any(dim=2)[0].tolist()
    assert has_gradient == [True, False, False, True], "the positive anchor and the negative with the high score"


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("normaliser", ["batch", "image"])
def test_the_loss_of_a_dataset_is_that_of_one_batch(loss, normaliser):
    """The images come in two batches. A state of the loss is used and stays as it is."""
    config = LossConfig(loss=loss, normaliser=normaliser, negatives_per_positive=1, ohem_examples=2)
    detection_loss = DetectionLoss(config=config)
    out = random_outputs()
    detection_loss(out, TWO_IMAGES)  # a training step, which sets the state
    state = {name: value.clone() for name, value in detection_loss.state_dict().items()}
    with torch.no_grad():
        expected = detection_loss(out, TWO_IMAGES)
    images = [detection_loss.per_image([one_image(out, TWO_IMAGES, i)]) for i in (0, 1)]
    assert detection_loss.state_dict().keys() == state.keys()
    assert all(torch.equal(detection_loss.state_dict()[name], value) for name, value in state.items())
    names = ("classification_N", "box_N", "positives_N")
    joined = ImageLosses(**{name: torch.cat([getattr(image, name) for image in images]) for name in names})
    found = detection_loss.over_dataset(joined)
    for name in ("total", "classification", "box", "num_positives"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def one_image(outputs, targets, index):
    one = slice(index, index + 1)
    outputs = dataclasses.replace(outputs, logits_NAK=outputs.logits_NAK[one], deltas_NA4=outputs.deltas_NA4[one])
    return outputs, AnchorTargets(**{f.name: getattr(targets, f.name)[one] for f in dataclasses.fields(targets)})
