"""Box losses against hand-worked values."""

from functools import partial

import pytest
import torch

from retinanet.losses import giou_loss, l1_loss, smooth_l1_loss

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 30, 10], [0, 10, 10, 20], [5, 5, 25, 45]])


def test_box_losses_give_hand_worked_values():
    """The anchor is 10 x 10 and all predicted offsets are 0.

    Box shifted by 1 in x: target dx = 0.1. L1: 0.1. Smooth L1 (beta 1/9): 0.5 x 0.01 x 9 = 0.045. IoU: 90 / 110.
    Box shifted by 10 in x: target dx = 1. L1: 1. Smooth L1: 1 - 1/18. GIoU: IoU 0, hull covered, so the loss is 1.
    """
    anchors = ANCHORS[:1].expand(2, 4)
    boxes = anchors + torch.tensor([[1.0, 0, 1, 0], [10, 0, 10, 0]])
    zero = torch.zeros(2, 4)
    torch.testing.assert_close(l1_loss(zero, boxes, anchors), torch.tensor([0.1, 1.0]))
    torch.testing.assert_close(smooth_l1_loss(zero, boxes, anchors, beta=1 / 9), torch.tensor([0.045, 1 - 1 / 18]))
    torch.testing.assert_close(giou_loss(zero, boxes, anchors), torch.tensor([1 - 90 / 110, 1.0]))


@pytest.mark.parametrize("loss", [giou_loss, l1_loss, partial(smooth_l1_loss, beta=0.1)])
def test_every_row_of_offsets_needs_its_own_box_and_anchor(loss):
    """One box for three rows of offsets would broadcast: an error of the caller that gives a wrong loss."""
    deltas_P4, anchors_P4 = torch.zeros(3, 4), torch.tensor([[0.0, 0.0, 4.0, 4.0]]).expand(3, 4)
    torch.testing.assert_close(loss(deltas_P4, anchors_P4, anchors_P4), torch.zeros(3))
    for wrong in (anchors_P4[:1], anchors_P4[0], anchors_P4[:2], anchors_P4[:, :3]):
        with pytest.raises(ValueError, match=r"expected offsets, boxes and anchors of one shape \(P, 4\), found"):
            loss(deltas_P4, wrong, anchors_P4)
        with pytest.raises(ValueError, match="of one shape"):
            loss(deltas_P4, anchors_P4, wrong)
