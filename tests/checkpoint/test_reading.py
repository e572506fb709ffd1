"""Tests of reading checkpoint files: accepted kinds of files, damaged files, files with code."""

import math

import pytest
import torch

from retinanet.model import Backbone, BackboneError, load_pretrained
from retinanet.train import CheckpointError, fit, load_checkpoint
from tests.checkpoint.helpers import forward_torchvision, small_file
from tests.shared import TRAINED


def test_a_damaged_checkpoint_is_named(tiny, run_folder, tmp_path):
    last = run_folder / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read"):
        fit(**tiny, **TRAINED, resume=True)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="not a retinanet checkpoint"):
        load_checkpoint(tmp_path / "other.ckpt")


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3},
        slow(lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}}),
        slow(lambda state: {f"module.{name}": value for name, value in state.items()}),
        slow(lambda state: {name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
                            if "inner_blocks" in name or "layer_blocks" in name else name: value
                            for name, value in state.items()}),
    ],
    ids=["model", "lightning", "ddp", "before 0.13"],
)  # fmt: skip
@torch.no_grad()
def test_state_dicts_load_from_every_supported_layout(tmp_path, wrap):
    theirs, path = small_file(tmp_path, wrap=wrap)
    saved = load_checkpoint(path)
    images, head, _, _ = forward_torchvision(theirs, [torch.rand(3, 90, 120)])
    torch.testing.assert_close(saved.model(images.tensors).logits_NAK, head["cls_logits"], rtol=0, atol=1e-4)
    assert saved.classes == ("class 0", "class 1", "class 2")


@pytest.mark.slow
def test_a_file_with_a_namespace_loads_and_a_file_with_code_is_refused(tmp_path):
    """torchvision's training script saves its arguments, an argparse.Namespace, beside the weights."""
    import argparse

    _, path = small_file(tmp_path, wrap=lambda state: {"model": state, "args": argparse.Namespace(lr=0.01)})
    assert load_checkpoint(path).model.num_classes == 3
    torch.save({"model": math.sqrt}, path)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)


@pytest.mark.slow
def test_a_safetensors_file_loads(tmp_path):
    from safetensors.torch import save_file

    model, _ = small_file(tmp_path)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "model.safetensors")
    assert load_checkpoint(tmp_path / "model.safetensors").model.num_classes == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "found an empty file"),
        ("a.safetensors", b"", "found an empty file"),
        ("a.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "Git LFS.*git lfs pull"),
        ("a.pth", b"\n<!DOCTYPE html><html></html>", "found an HTML page"),
        ("a.ckpt", b"\x89PNG\r\n\x1a\n", "found an image"),
        ("a.ckpt", b"\x08\x08\x12\x07pytorch", "found an ONNX model: name it .onnx"),
        ("a.ckpt", b"PK\x03\x04" + bytes(96), "not complete: it ends after 100 bytes"),
        ("a.ckpt", b"hello", "expected a file of torch.save or safetensors, found text"),
        ("a.ckpt", bytes(100), "found another kind of file"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_described(tmp_path, name, content, message):
    """Downloads that failed, in both readers of weights. torch.load advises to use weights_only=False."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    with pytest.raises(BackboneError, match=message) as error:
        load_pretrained(Backbone(name="test_resnet"), weights=str(path))
    assert "weights_only" not in str(error.value)


def test_a_folder_instead_of_a_checkpoint_names_the_file_in_it(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected a file, found the folder .*\. Give a file"):
        load_checkpoint(tmp_path)
    (tmp_path / "best.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"found the folder .*\. Give .*best\.ckpt"):
        load_checkpoint(tmp_path)
