"""Tests of the shapes and the order of the network's outputs."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from retinanet.model import RetinaNet

SMALL = {"backbone": "tf_efficientnet_lite0", "fpn_width": 16, "head_width": 16, "head_depth": 1}


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 131), (33, 200)])
def test_outputs_have_one_row_per_anchor_for_any_image_size(height, width):
    """Image sizes need not be multiples of the strides."""
    model = RetinaNet(num_classes=3, **SMALL).eval()
    with torch.inference_mode():
        out = model(torch.randn(2, 3, height, width))
    expected = tuple(9 * -(-height // s) * -(-width // s) for s in (8, 16, 32, 64, 128))
    assert out.anchors_per_level == expected
    assert out.logits_NAK.shape == (2, sum(expected), 3)
    assert out.deltas_NA4.shape == (2, sum(expected), 4)
    assert out.anchors_A4.shape == (sum(expected), 4)


def test_logits_and_anchors_have_the_same_order():
    """The head outputs the anchor's index 0 to 8 at each position, and anchor 4 must be the square one."""
    model = RetinaNet(num_classes=1, **SMALL).eval()
    output_shapes = []
    model.class_head.output.register_forward_hook(lambda *args: output_shapes.append(args[2].shape))
    with torch.no_grad():
        model.class_head.output.weight.zero_()
        model.class_head.output.bias.copy_(torch.arange(9.0))
    out = model(torch.zeros(1, 3, 64, 128))
    # Anchor 4 of each position has ratio 1 and the middle scale.
    chosen = out.anchors_A4[out.logits_NAK[0, :, 0] == 4]
    width, height = (chosen[:, 2:] - chosen[:, :2]).T
    torch.testing.assert_close(width, height)
    assert width[0] == pytest.approx(32 * 2 ** (1 / 3), rel=1e-5)
    assert len(chosen) == sum(shape[-1] * shape[-2] for shape in output_shapes)


@pytest.mark.parametrize(("x", "y"), [(16, 96), (464, 32), (240, 128)])
def test_a_bright_spot_changes_the_logits_of_nearby_anchors(x, y):
    """The test fails if rows and columns are swapped."""
    torch.manual_seed(0)
    model = RetinaNet(num_classes=2, **SMALL).eval()
    images = torch.zeros(1, 3, 256, 512)
    with torch.inference_mode():
        before = model(images)
        images[..., y - 8 : y + 8, x - 8 : x + 8] = 5
        after = model(images)
    change = (after.logits_NAK - before.logits_NAK).abs().sum(-1)[0][: before.anchors_per_level[0]]
    centre = ((before.anchors_A4[:, :2] + before.anchors_A4[:, 2:]) / 2)[change.argmax()]
    assert (centre - torch.tensor([x, y])).abs().max() <= 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "most"),
    [("resnet10t", 3), pytest.param("tf_efficientnet_lite0", 4, id="padding by size")],
)
def test_a_compiled_network_has_equal_outputs_and_is_rarely_compiled_again(backbone, most):
    """Four sizes need at most 3 compilations. A copy is not compiled, and both have the same weights."""
    model = RetinaNet(num_classes=2, **{**SMALL, "backbone": backbone}).eval()
    counter = CompileCounter()
    copied = copy.deepcopy(model)
    copied.compile(backend=counter)
    for height, width in [(160, 192), (192, 160), (256, 288), (288, 256)]:
        images_N3HW = torch.randn(2, 3, height, width)
        expected, found = model(images_N3HW), copied(images_N3HW)
        torch.testing.assert_close(found.logits_NAK, expected.logits_NAK)
        torch.testing.assert_close(found.deltas_NA4, expected.deltas_NA4)
        assert torch.equal(found.anchors_A4, expected.anchors_A4)
    assert 1 <= counter.frame_count <= most
    before = counter.frame_count
    copy.deepcopy(copied)(torch.randn(1, 3, 200, 72))
    assert counter.frame_count == before
    assert copied.state_dict().keys() == model.state_dict().keys()
