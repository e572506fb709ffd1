"""The network as it is exported."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from retinanet.export.torch_network import fixed_padding
from tests.export.made import network, train_config


def test_same_padding_is_fixed_without_a_change(exports: Path) -> None:
    """The padding that TensorFlow's convolutions compute is, on multiples of 32, what the export has."""
    config = train_config(exports, backbone="tf_efficientnet_lite0")
    model = network(config)
    fixed = fixed_padding(copy.deepcopy(model))
    assert not any(type(module).__name__ == "Conv2dSame" for module in fixed.modules())
    assert any(type(module).__name__ == "Conv2dSame" for module in model.modules()), "the original stays"
    images = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        torch.testing.assert_close(fixed(images).logits_NAK, model(images).logits_NAK)
