"""The fast copy of a network returns equal outputs, and the network does not change."""

import copy

import pytest
import torch
from torch import nn

from retinanet.config import ImageConfig, PostprocessConfig
from retinanet.errors import ConfigError
from retinanet.ops import convolution
from retinanet.ops.convolution import PreparedConvolution, onednn_works
from retinanet.predict.fast_network import for_inference
from retinanet.predict.torch_detector import Detector
from tests.predict.made_network import random_network


def difference(actual, expected):
    """Return the largest difference in standard deviations of the expected values."""
    return float((actual - expected).abs().max() / expected.std())


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("resnet18", {}),
        ("resnet18", {"levels": (4, 5), "anchor_sizes": (64.0, 128.0)}),
        ("resnet18", {"levels": (2, 3), "anchor_sizes": (16.0, 32.0)}),
        pytest.param("resnet50", {"p6_from": "p5"}, marks=pytest.mark.slow),
        ("tf_efficientnet_lite0", {"head_norm": "group"}),  # "SAME" padding; activation inside BatchNorm
        ("regnety_002", {}),  # squeeze-and-excitation
        ("convnext_atto", {}),  # no BatchNorm
    ],
)
def test_the_fast_copy_has_equal_outputs_and_the_model_does_not_change(backbone, options):
    model = random_network(backbone, **options)
    before = copy.deepcopy(model.state_dict())
    fast = for_inference(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    images_N3HW = torch.randn(2, 3, 97, 131)
    with torch.inference_mode():
        expected, first, second = model(images_N3HW), fast(images_N3HW), fast(images_N3HW)
    assert difference(first.logits_NAK, expected.logits_NAK) < 1e-3
    assert difference(first.deltas_NA4, expected.deltas_NA4) < 1e-3
    assert torch.equal(first.anchors_A4, expected.anchors_A4)
    assert torch.equal(second.logits_NAK, first.logits_NAK)  # additions in place change no weights or inputs
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_all_operations_of_a_resnet_are_folded_into_convolutions():
    """Only 53 convolutions and the pooling remain: no separate BatchNorm, activation or addition."""
    body = for_inference(random_network("resnet50")).backbone.body.module
    steps = [node for node in body.graph.nodes if node.op.startswith("call")]
    kinds = [type(body.get_submodule(node.target)) for node in steps if node.op == "call_module"]
    assert len(kinds) == len(steps) == 54
    assert kinds.count(PreparedConvolution) == 53


def test_images_of_changing_sizes():
    """Prepared weights are kept for the last input shape in the backbone, and for one shape per level in the heads."""
    if not onednn_works(torch.float32):
        pytest.skip("this torch has no oneDNN")
    model = random_network("resnet18")
    fast = for_inference(model)
    with torch.inference_mode():
        for height, width in ((64, 96), (160, 96), (64, 96)):
            images_N3HW = torch.randn(1, 3, height, width)
            assert difference(fast(images_N3HW).logits_NAK, model(images_N3HW).logits_NAK) < 1e-4
    assert len(fast.class_head.output.module._packed) == 5
    assert len(fast.fpn.lateral[0]._packed) == 1


def test_plain_convolutions_give_equal_outputs(monkeypatch):
    """Plain convolutions are used on accelerators, and if torch has no oneDNN operators."""
    model = random_network("resnet18")
    images_N3HW = torch.randn(1, 3, 64, 96)
    monkeypatch.setattr(convolution, "onednn_works", lambda _: False)
    monkeypatch.setattr(convolution, "supports_winograd", lambda _: False)
    plain = for_inference(model)
    with torch.inference_mode():
        assert difference(plain(images_N3HW).logits_NAK, model(images_N3HW).logits_NAK) < 1e-4


def test_bf16_keeps_the_last_layers_in_float32():
    model = random_network("resnet18")
    fast = for_inference(model, precision="bf16")
    outputs = fast(torch.randn(1, 3, 64, 96))
    assert outputs.logits_NAK.dtype == outputs.deltas_NA4.dtype == outputs.anchors_A4.dtype == torch.float32
    assert fast.class_head.output.module.bias.dtype == torch.float32
    assert fast.fpn.lateral[0].bias.dtype == torch.bfloat16
    expected = model(torch.randn(1, 3, 64, 96))
    assert outputs.logits_NAK.shape == expected.logits_NAK.shape
    assert next(model.parameters()).dtype == torch.float32


def test_a_detector_accepts_a_precision_by_name():
    def detector(model, precision):
        return Detector(
            model=model,
            classes=("a", "b", "c", "d"),
            category_ids=(1, 2, 3, 4),
            image_config=ImageConfig(image_size=64, max_size=96),
            postprocess_config=PostprocessConfig(score_threshold=0.0),
            device="cpu",
            precision=precision,
        )

    model = random_network("resnet18")
    image = torch.randint(0, 255, (48, 64, 3), dtype=torch.uint8).numpy()
    exact, rounded = detector(model, "32").predict(image), detector(model, "bf16").predict(image)
    assert len(exact) == len(rounded) == 100
    assert abs(exact.confidence - rounded.confidence).max() < 0.02
    with pytest.raises(ConfigError, match=r"precision must be one of 32, bf16, found 'bf15'. Did you mean 'bf16'"):
        detector(model, "bf15")
    with pytest.raises(ConfigError, match="expects a RetinaNet, found Identity"):
        detector(nn.Identity(), "bf16")
