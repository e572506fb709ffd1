"""Tests of the feature pyramid."""

import torch

from retinanet.model import RetinaNet

SMALL = {"backbone": "tf_efficientnet_lite0", "fpn_width": 16, "head_width": 16, "head_depth": 1}


def test_the_pyramid_can_start_at_p2():
    model = RetinaNet(num_classes=1, levels=(2, 3, 4, 5, 6, 7), anchor_sizes=(16, 32, 64, 128, 256, 512), **SMALL)
    assert model(torch.zeros(1, 3, 64, 64)).anchors_per_level[0] == 16 * 16 * 9
