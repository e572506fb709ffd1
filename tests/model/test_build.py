"""Tests of building a network from options and from parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import retinanet
from retinanet.config import ModelConfig
from retinanet.errors import ConfigError
from retinanet.model import BackboneError, RetinaNet, has_level_2


def test_the_default_network_is_that_of_the_paper():
    model = retinanet.RetinaNet(num_classes=3, backbone="resnet50")
    assert model.config == ModelConfig()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(36.4e6, rel=0.02)
    assert model.fpn.coarse[0].in_channels == 2048, "P6 from C5, as in the paper"


def test_invalid_options_are_refused():
    with pytest.raises(ConfigError, match="unknown option 'head_dept'. Did you mean 'head_depth'"):
        RetinaNet(num_classes=1, head_dept=2)
    with pytest.raises(BackboneError, match="timm has no model 'resnet5'. Did you mean 'resnet5"):
        RetinaNet(num_classes=1, backbone="resnet5")
    with pytest.raises(BackboneError, match=r"expected feature maps at strides \[8, 16, 32\], found"):
        RetinaNet(num_classes=1, backbone="vit_tiny_patch16_224")


@pytest.mark.parametrize("number", [0, -1, 1.5, "3", True, None, ["cat"]])
def test_the_number_of_classes_is_an_integer_of_1_or_more(number):
    with pytest.raises(ValueError, match="num_classes must be an integer of 1 or more, found"):
        RetinaNet(num_classes=number, backbone="test_resnet")


def test_numpys_integers_are_a_number_of_classes():
    assert type(RetinaNet(num_classes=np.int64(2), backbone="test_resnet", **SMALL).num_classes) is int


OUTSIDE = "tests.outside_parts"


SMALL = {"fpn_width": 8, "head_width": 8, "head_depth": 1}


def test_a_network_from_parts_equals_the_one_from_options():
    torch.manual_seed(3)
    from_options = RetinaNet(num_classes=2, backbone="test_resnet", **SMALL)
    config = ModelConfig(backbone="test_resnet", **SMALL)
    parts = {name: getattr(from_options, name) for name in ("backbone", "class_head", "box_head", "anchors")}
    from_parts = RetinaNet(**parts, pyramid=from_options.fpn, config=config)
    images_N3HW = torch.randn(1, 3, 64, 64)
    assert from_parts.num_classes == 2
    assert list(from_parts.state_dict()) == list(from_options.state_dict())
    assert torch.equal(from_parts(images_N3HW).logits_NAK, from_options(images_N3HW).logits_NAK)
    with pytest.raises(ValueError, match="missing: pyramid"):
        RetinaNet(**parts)
    with pytest.raises(ValueError, match="either parts or options, found parts and the options head_depth"):
        RetinaNet(**parts, pyramid=from_options.fpn, head_depth=2)
    with pytest.raises(ValueError, match="built from parts"):
        _ = RetinaNet(**parts, pyramid=from_options.fpn).config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_channels", "expected an attribute `channels` with 3 numbers.*8, 16, 32, found None"),
        ("too_coarse", r"expected feature maps of shapes \[\(1, 4, 12, 20\).*found \[\(1, 4, 6, 10\)"),
        ("broken", "an image of 160 x 96 pixels raised ZeroDivisionError: division by zero"),
        ("no_module", "expected a factory that returns a torch.nn.Module, found str"),
    ],
)
def test_an_unsuitable_custom_backbone_is_refused(name, message):
    with pytest.raises(BackboneError, match=message):
        RetinaNet(num_classes=1, backbone=f"{OUTSIDE}:{name}")


@pytest.mark.parametrize(("backbone", "expected"), [("test_resnet", True), (f"{OUTSIDE}:from_stride_8", False)])
def test_level_2_needs_a_backbone_with_a_map_at_stride_4(backbone, expected):
    before = torch.get_rng_state()
    assert has_level_2(ModelConfig(backbone=backbone)) is expected
    assert torch.equal(torch.get_rng_state(), before), "the seed of a run must give the same weights"
