"""Tests of box functions: hand-worked numbers, comparison with torchvision, and properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import ops

from retinanet.boxes import (
    MAX_LOG_SCALE,
    area,
    clip,
    decode,
    encode,
    generalized_iou,
    intersection,
    iou,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

side = st.floats(0.5, 900, width=32)
corner = st.floats(-200, 1300, width=32)


@st.composite
def box(draw):
    x, y = draw(corner), draw(corner)
    return [x, y, x + draw(side), y + draw(side)]


def test_iou_by_hand():
    """Two 10 x 10 boxes shifted by 5 in x: common 50, union 150, IoU 1/3."""
    first, second = torch.tensor([0.0, 0, 10, 10]), torch.tensor([5.0, 0, 15, 10])
    assert intersection(first, second) == 50
    assert iou(first, second) == pytest.approx(1 / 3)
    assert iou(first, torch.tensor([20.0, 20, 30, 30])) == 0
    assert area(torch.tensor([0.0, 0, 3, 4])) == 12, "no +1"


def test_iou_of_boxes_without_area_is_zero():
    point = torch.tensor([5.0, 5, 5, 5])
    inverted = torch.tensor([10.0, 10, 0, 0])
    for other in (point, inverted, torch.tensor([0.0, 0, 10, 10])):
        assert iou(point, other) == 0
        assert iou(inverted, other) == 0


def test_giou_by_hand():
    """Boxes [0,0,1,1] and [2,0,3,1]: IoU 0, hull 3, of which neither box covers 1: GIoU -1/3."""
    first, second = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 0, 3, 1]])
    assert generalized_iou(first, second).item() == pytest.approx(-1 / 3)
    assert generalized_iou(first, first).item() == pytest.approx(1)


def test_encode_by_hand():
    """Anchor 10 x 20 at (5, 10), box 20 x 20 at (10, 10): dx 0.5, dy 0, dw ln 2, dh 0."""
    deltas = encode(torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([[0.0, 0, 10, 20]]))
    torch.testing.assert_close(deltas, torch.tensor([[0.5, 0, math.log(2), 0]]))


@given(box(), box())
def test_iou_and_giou_equal_torchvision(first, second):
    a, b = torch.tensor([first]), torch.tensor([second])
    torch.testing.assert_close(iou(a[:, None], b[None]), ops.box_iou(a, b))
    torch.testing.assert_close(generalized_iou(a, b), ops.generalized_box_iou(a, b)[0])
    torch.testing.assert_close(iou(a, b), iou(b, a))


@given(box(), box())
def test_decode_inverts_encode(target, anchor):
    target, anchor = torch.tensor([target], dtype=torch.float64), torch.tensor([anchor], dtype=torch.float64)
    deltas = encode(target, anchor)
    if (deltas[0, 2:] < MAX_LOG_SCALE).all():
        torch.testing.assert_close(decode(deltas, anchor), target, rtol=1e-9, atol=1e-6)


@given(box())
def test_xywh_round_trip_and_clip(values):
    boxes = torch.tensor([values], dtype=torch.float64)
    torch.testing.assert_close(xywh_to_xyxy(xyxy_to_xywh(boxes)), boxes)
    clipped = clip(boxes, width=640, height=480)
    assert (clipped >= 0).all()
    assert (clipped <= torch.tensor([640, 480, 640, 480])).all()
    assert (clipped[:, 2:] >= clipped[:, :2]).all()


def test_decode_of_extreme_offsets_is_finite():
    deltas = torch.tensor([[1e4, -1e4, 1e4, 1e4], [0, 0, -1e4, -1e4]])
    assert torch.isfinite(decode(deltas, torch.tensor([[0.0, 0, 32, 32]]).expand(2, 4))).all()


def test_giou_gradient_is_finite_for_disjoint_equal_and_nested_boxes():
    other = torch.tensor([[0.0, 0, 10, 10]] * 3)
    boxes = torch.tensor([[20.0, 20, 30, 30], [0, 0, 10, 10], [2, 2, 4, 4]], requires_grad=True)
    generalized_iou(boxes, other).sum().backward()
    assert torch.isfinite(boxes.grad).all()
    assert (boxes.grad[0] != 0).any(), "the GIoU of disjoint boxes has a gradient"
