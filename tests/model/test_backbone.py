"""Tests of backbones: several timm models, frozen BatchNorm, weights that a seed gives."""

from __future__ import annotations

import copy

import pytest
import timm
import torch

from retinanet.model import Backbone, BackboneError, RetinaNet


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "regnetx_002"])
def test_timm_backbones_train(backbone):
    model = RetinaNet(num_classes=2, backbone=backbone, fpn_width=16, head_width=16, head_depth=1, head_norm="group")
    model(torch.randn(1, 3, 64, 64)).logits_NAK.sum().backward()
    assert all(p.grad is not None for p in model.class_head.parameters())


def test_frozen_batchnorm_does_not_change_in_training():
    backbone = Backbone(name="resnet18")
    backbone.freeze_batchnorm()
    backbone.train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "bn" in k}
    sum(m.sum() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert all(torch.equal(v, backbone.state_dict()[k]) for k, v in before.items())
    assert all(p.grad is None for n, p in backbone.named_parameters() if "bn" in n)
    assert any(p.grad is not None for n, p in backbone.named_parameters() if "conv" in n)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_frozen_batchnorm_has_the_gradient_of_eval_mode_and_saves_less_memory(name, dtype):
    """y = (x - mean) w / sqrt(var + eps) + b, so dx = dy w / sqrt(var + eps), which does not depend on x."""
    torch.manual_seed(0)
    plain = Backbone(name=name).to(dtype)
    for norm in plain._batchnorms():
        for value, low in ((norm.running_mean, -1.0), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -1.0)):
            value.data.uniform_(low, low + 1.5)
    frozen = copy.deepcopy(plain)
    frozen.freeze_batchnorm()
    plain.eval()
    images_N3HW = torch.rand(2, 3, 64, 96, dtype=dtype)
    saved_bytes, outputs, gradients = [], [], []
    for backbone in (plain, frozen):
        maps: dict[int, int] = {}  # bytes by address, because one map is often saved for two layers

        def count(x: torch.Tensor, maps: dict[int, int] = maps) -> torch.Tensor:
            maps.update({x.data_ptr(): x.nbytes} if x.shape[0] == len(images_N3HW) else {})
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            outputs.append(backbone(images_N3HW))
        saved_bytes.append(sum(maps.values()))
        sum(output.square().mean() for output in outputs[-1]).backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters() if p.requires_grad and p.grad is not None})
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert saved_bytes[1] < 0.7 * saved_bytes[0]
    convolutions = {key for key in gradients[0] if gradients[0][key].ndim == 4}
    assert convolutions == set(gradients[1])
    tolerance = 1e-9 if dtype == torch.float64 else 0.05
    for key in convolutions:
        expected = gradients[0][key]
        assert (gradients[1][key] - expected).norm() <= tolerance * expected.norm(), key


def test_a_seed_gives_the_weights_of_earlier_versions():
    """Building a backbone draws timm's weights twice, and the second ones count. tests/golden depends on this order."""
    torch.manual_seed(0)
    first = Backbone(name="test_resnet")
    torch.manual_seed(0)
    timm.create_model("test_resnet", features_only=True)
    second = timm.create_model("test_resnet", features_only=True, out_indices=(2, 3, 4))
    assert torch.equal(next(first.body.parameters()), next(second.parameters()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visformer_tiny", "an image of 160 x 96 pixels raised AssertionError: Input height"),
        ("mambaout_femto", r"\(1, 96, 12, 20\).* for an image of 160 x 96 pixels, found \[\(1, 12, 20, 96\)"),
        ("csatv2", r"\(1, 32, 6, 10\).* found \[\(1, 32, 12, 20\), \(1, 32, 12, 20\), \(1, 72, 6, 10\)"),
    ],
)
def test_a_timm_model_whose_maps_differ_from_timms_description_is_refused(name, message):
    """A fixed image size, channels last, and strides of 8, 8 and 16 that timm declares as 8, 16 and 32."""
    with pytest.raises(BackboneError, match=message):
        Backbone(name=name)


def test_an_unknown_name_with_hub_and_weights_names_the_nearest_model():
    with pytest.raises(BackboneError, match="'timm/resnet18.a1_in1k'. Did you mean 'resnet18'"):
        Backbone(name="timm/resnet18.a1_in1k")
