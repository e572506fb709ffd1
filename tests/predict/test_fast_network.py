"""The copy for prediction: the same outputs as the network itself, which stays as it is."""

import copy
import math

import pytest
import torch
from torch import nn

from retinanet.config import ImageConfig, PostprocessConfig
from retinanet.errors import ConfigError
from retinanet.model import RetinaNet
from retinanet.ops import convolution
from retinanet.ops.convolution import PreparedConvolution, onednn_works
from retinanet.ops.native_library import available
from retinanet.predict.fast_network import for_inference
from retinanet.predict.torch_detector import Detector

SMALL = {"fpn_width": 32, "head_width": 32, "head_depth": 1}


def trained(backbone, **options):
    """A network whose BatchNorm does something, as after training: none of its statistics is 0 or 1."""
    torch.manual_seed(0)
    model = RetinaNet(num_classes=4, backbone=backbone, **SMALL, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return model


def difference(found, expected):
    return float((found - expected).abs().max() / expected.std())


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("resnet18", {}),
        ("resnet50", {"p6_from": "p5"}),
        ("tf_efficientnet_lite0", {"head_norm": "group"}),  # pads by the input's size; activation within BatchNorm
        ("regnety_002", {}),  # squeeze and excitation
        ("convnext_atto", {}),  # no BatchNorm
    ],
)
def test_same_outputs_and_the_model_untouched(backbone, options):
    model = trained(backbone, **options)
    before = copy.deepcopy(model.state_dict())
    fast = for_inference(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    images_N3HW = torch.randn(2, 3, 97, 131)
    with torch.inference_mode():
        expected, found, again = model(images_N3HW), fast(images_N3HW), fast(images_N3HW)
    assert difference(found.logits_NAK, expected.logits_NAK) < 1e-3
    assert difference(found.deltas_NA4, expected.deltas_NA4) < 1e-3
    assert torch.equal(found.anchors_A4, expected.anchors_A4)
    assert torch.equal(again.logits_NAK, found.logits_NAK)  # what is overwritten is nobody's
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_every_step_of_a_resnet_is_within_its_convolutions():
    """Left are 53 convolutions and the pooling: no BatchNorm, no activation, no addition of their own."""
    body = for_inference(trained("resnet50")).backbone.body.module
    steps = [node for node in body.graph.nodes if node.op.startswith("call")]
    kinds = [type(body.get_submodule(node.target)) for node in steps if node.op == "call_module"]
    assert len(kinds) == len(steps) == 54
    assert kinds.count(PreparedConvolution) == 53


def test_pictures_of_changing_sizes():
    """Weights are laid out for the last shape of the backbone, and for that of each level in the heads."""
    if not onednn_works(torch.float32):
        pytest.skip("torch has no oneDNN here")
    model = trained("resnet18")
    fast = for_inference(model)
    with torch.inference_mode():
        for height, width in ((64, 96), (160, 96), (64, 96)):
            images_N3HW = torch.randn(1, 3, height, width)
            assert difference(fast(images_N3HW).logits_NAK, model(images_N3HW).logits_NAK) < 1e-4
    assert len(fast.class_head.output.module._packed) == 5
    assert len(fast.fpn.lateral[0]._packed) == 1


def test_plain_convolutions_give_equal_outputs(monkeypatch):
    """Plain convolutions run on accelerators, and in a torch without oneDNN's operators."""
    model = trained("resnet18")
    images_N3HW = torch.randn(1, 3, 64, 96)
    monkeypatch.setattr(convolution, "onednn_works", lambda _: False)
    monkeypatch.setattr(convolution, "supports_winograd", lambda _: False)
    plain = for_inference(model)
    with torch.inference_mode():
        assert difference(plain(images_N3HW).logits_NAK, model(images_N3HW).logits_NAK) < 1e-4


def test_bf16_keeps_the_last_layers_float32():
    model = trained("resnet18")
    fast = for_inference(model, precision="bf16")
    outputs = fast(torch.randn(1, 3, 64, 96))
    assert outputs.logits_NAK.dtype == outputs.deltas_NA4.dtype == outputs.anchors_A4.dtype == torch.float32
    assert fast.class_head.output.module.bias.dtype == torch.float32
    assert fast.fpn.lateral[0].bias.dtype == torch.bfloat16
    expected = model(torch.randn(1, 3, 64, 96))
    assert outputs.logits_NAK.shape == expected.logits_NAK.shape
    assert next(model.parameters()).dtype == torch.float32


def test_detector_takes_a_precision_by_name():
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

    model = trained("resnet18")
    picture = torch.randint(0, 255, (48, 64, 3), dtype=torch.uint8).numpy()
    exact, rounded = detector(model, "32").predict(picture), detector(model, "bf16").predict(picture)
    assert len(exact) == len(rounded) == 100
    assert abs(exact.confidence - rounded.confidence).max() < 0.02
    with pytest.raises(ConfigError, match=r"precision must be one of 32, bf16, found 'bf15'. Did you mean 'bf16'"):
        detector(model, "bf15")
    with pytest.raises(ConfigError, match="for a RetinaNet, found Identity"):
        detector(nn.Identity(), "bf16")


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_offsets_only_where_scores_ask_for_them(precision):
    """The same at every position with a score above, 0 elsewhere, whatever the share of positions that is."""
    if not available():
        pytest.skip("no native kernels")
    torch.manual_seed(0)
    model = RetinaNet(num_classes=4, backbone="resnet18", fpn_width=32, head_width=32, head_depth=4).eval()
    for head in (model.class_head, model.box_head):  # else all scores are alike, and all offsets 0
        for module in head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.08)
    fast = for_inference(model, precision=precision)
    assert fast.skips_offsets
    images_N3HW = torch.randn(2, 3, 300, 420)
    with torch.inference_mode():
        every = fast(images_N3HW)
        highest_NA = every.logits_NAK.amax(dim=2)
        for share in (0.0, 0.0005, 0.01, 0.3, 1.0):
            above = float(highest_NA.flatten().quantile(1 - share)) if share < 1 else -math.inf
            found = fast(images_N3HW, above=above)
            assert torch.equal(found.logits_NAK, every.logits_NAK)
            wanted_NA = highest_NA > above
            assert (found.deltas_NA4 - every.deltas_NA4)[wanted_NA].abs().amax() < 1e-5 if wanted_NA.any() else True
            if share in (0.0, 0.0005):
                assert (found.deltas_NA4[:, :1000] == 0).all(dim=2).float().mean() > 0.5
        assert every.deltas_NA4.std() > 0.05


def test_a_head_with_norms_over_the_map_is_worked_out_everywhere():
    model = trained("resnet18", head_norm="group")
    fast = for_inference(model)
    assert not fast.skips_offsets
    images_N3HW = torch.randn(1, 3, 160, 192)
    with torch.inference_mode():
        assert torch.equal(fast(images_N3HW, above=9.0).deltas_NA4, fast(images_N3HW).deltas_NA4)
