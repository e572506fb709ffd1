"""The network: the shapes and the order of its outputs."""

import pytest
import torch

from retinanet.model import RetinaNet

SMALL = {"backbone": "tf_efficientnet_lite0", "fpn_width": 16, "head_width": 16, "head_depth": 1}


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 131), (33, 200)])
def test_outputs_of_any_size_meet_their_anchors(height, width):
    """Sizes that no stride divides: one row of scores, offsets and anchor for each anchor of each level."""
    model = RetinaNet(num_classes=3, **SMALL).eval()
    with torch.inference_mode():
        out = model(torch.randn(2, 3, height, width))
    expected = tuple(9 * -(-height // s) * -(-width // s) for s in (8, 16, 32, 64, 128))
    assert out.anchors_per_level == expected
    assert out.logits_NAK.shape == (2, sum(expected), 3)
    assert out.deltas_NA4.shape == (2, sum(expected), 4)
    assert out.anchors_A4.shape == (sum(expected), 4)


def test_positions_and_anchors_are_in_the_same_order():
    """A head that answers at one place only: the anchor with that answer must lie there."""
    model = RetinaNet(num_classes=1, **SMALL).eval()
    seen = []
    model.class_head.output.register_forward_hook(lambda *args: seen.append(args[2].shape))
    with torch.no_grad():
        model.class_head.output.weight.zero_()
        model.class_head.output.bias.copy_(torch.arange(9.0))
    out = model(torch.zeros(1, 3, 64, 128))
    # Anchor 4 of each position is the square one with the middle scale.
    chosen = out.anchors_A4[out.logits_NAK[0, :, 0] == 4]
    width, height = (chosen[:, 2:] - chosen[:, :2]).T
    torch.testing.assert_close(width, height)
    assert width[0] == pytest.approx(32 * 2 ** (1 / 3), rel=1e-5)
    assert len(chosen) == sum(shape[-1] * shape[-2] for shape in seen)


@pytest.mark.parametrize(("x", "y"), [(16, 96), (464, 32), (240, 128)])
def test_what_changes_in_the_image_changes_the_anchors_there(x, y):
    """A bright spot excites the anchors around it most: rows and columns are not swapped anywhere."""
    torch.manual_seed(0)
    model = RetinaNet(num_classes=2, **SMALL).eval()
    images = torch.zeros(1, 3, 256, 512)
    with torch.inference_mode():
        quiet = model(images)
        images[..., y - 8 : y + 8, x - 8 : x + 8] = 5
        loud = model(images)
    change = (loud.logits_NAK - quiet.logits_NAK).abs().sum(-1)[0][: quiet.anchors_per_level[0]]
    centre = ((quiet.anchors_A4[:, :2] + quiet.anchors_A4[:, 2:]) / 2)[change.argmax()]
    assert (centre - torch.tensor([x, y])).abs().max() <= 64
