"""Conversion of the network before the export."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from retinanet.export.torch_network import fix_padding
from tests.export.made import network, train_config


def test_fixed_padding_equals_same_padding(exports: Path) -> None:
    """For sides that are multiples of 32, the fixed padding equals the padding that "SAME" convolutions compute."""
    config = train_config(exports, backbone="tf_efficientnet_lite0")
    model = network(config)
    fixed = fix_padding(copy.deepcopy(model))
    assert not any(type(module).__name__ == "Conv2dSame" for module in fixed.modules())
    assert any(type(module).__name__ == "Conv2dSame" for module in model.modules()), "the given model does not change"
    images = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        torch.testing.assert_close(fixed(images).logits_NAK, model(images).logits_NAK)
