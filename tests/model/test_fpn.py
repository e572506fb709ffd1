"""Tests of the feature pyramid."""

import pytest
import torch

from retinanet.model import RetinaNet

SMALL = {"backbone": "tf_efficientnet_lite0", "fpn_width": 16, "head_width": 16, "head_depth": 1}


def test_the_pyramid_can_start_at_p2():
    model = RetinaNet(num_classes=1, levels=(2, 3, 4, 5, 6, 7), anchor_sizes=(16, 32, 64, 128, 256, 512), **SMALL)
    assert model(torch.zeros(1, 3, 64, 64)).anchors_per_level[0] == 16 * 16 * 9


@pytest.mark.parametrize("levels", [(3,), (3, 4), (4, 5, 6), (5,), (2, 3)])
def test_the_levels_can_end_or_start_anywhere(levels):
    """A level has the same features with and without the other levels: each pyramid uses all maps from above."""
    sizes = [8.0 * 2**level for level in levels]
    torch.manual_seed(0)
    model = RetinaNet(num_classes=1, levels=levels, anchor_sizes=sizes, **SMALL).eval()
    outputs = model(torch.zeros(1, 3, 64, 96))
    positions = [-(-64 // 2**level) * -(-96 // 2**level) for level in levels]
    assert list(outputs.anchors_per_level) == [9 * count for count in positions]
    assert len(outputs.logits_NAK[0]) == sum(outputs.anchors_per_level)
    whole = RetinaNet(num_classes=1, levels=(2, 3, 4, 5, 6), anchor_sizes=[1.0] * 5, **SMALL).eval()
    first = levels[0] - 2
    for name in ("lateral", "output"):
        ours, theirs = (getattr(m.fpn, name) for m in (model, whole))
        for i, module in enumerate(ours):
            theirs[i + first].load_state_dict(module.state_dict())
    maps = whole.backbone(torch.randn(1, 3, 64, 96))
    expected = whole.fpn(maps)[first : first + len([level for level in levels if level <= 5])]
    found = model.fpn(maps if levels[0] == 2 else maps[1:])
    for a, b in zip(found[: len(expected)], expected, strict=True):
        torch.testing.assert_close(a, b)
