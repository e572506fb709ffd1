"""The box head that skips positions with scores below the threshold."""

import math

import pytest
import torch
from torch import nn

from retinanet.model import RetinaNet
from retinanet.ops.native_library import available
from retinanet.predict.fast_network import for_inference
from tests.predict.made_network import random_network


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_offsets_are_computed_only_at_positions_above_the_threshold(precision):
    """Offsets are equal at positions above the threshold, and mostly 0 elsewhere, for any share of such positions."""
    if not available():
        pytest.skip("the native kernels are not available")
    torch.manual_seed(0)
    model = RetinaNet(num_classes=4, backbone="resnet18", fpn_width=32, head_width=32, head_depth=4).eval()
    for head in (model.class_head, model.box_head):  # otherwise all scores are almost equal, and all offsets almost 0
        for module in head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.08)
    fast = for_inference(model, precision=precision)
    assert fast.skips_offsets
    images_N3HW = torch.randn(2, 3, 300, 420)
    with torch.inference_mode():
        complete = fast(images_N3HW)
        highest_NA = complete.logits_NAK.amax(dim=2)
        for share in (0.0, 0.0005, 0.01, 0.3, 1.0):
            above = float(highest_NA.flatten().quantile(1 - share)) if share < 1 else -math.inf
            partial = fast(images_N3HW, above=above)
            assert torch.equal(partial.logits_NAK, complete.logits_NAK)
            wanted_NA = highest_NA > above
            difference_NA4 = partial.deltas_NA4 - complete.deltas_NA4
            assert difference_NA4[wanted_NA].abs().amax() < 1e-5 if wanted_NA.any() else True
            if share in (0.0, 0.0005):
                assert (partial.deltas_NA4[:, :1000] == 0).all(dim=2).float().mean() > 0.5
        assert complete.deltas_NA4.std() > 0.05


def test_a_head_with_group_normalisation_computes_all_positions():
    model = random_network("resnet18", head_norm="group")
    fast = for_inference(model)
    assert not fast.skips_offsets
    images_N3HW = torch.randn(1, 3, 160, 192)
    with torch.inference_mode():
        assert torch.equal(fast(images_N3HW, above=9.0).deltas_NA4, fast(images_N3HW).deltas_NA4)
