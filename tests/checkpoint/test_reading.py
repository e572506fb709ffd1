"""Tests of reading checkpoint files: accepted kinds of files, damaged files, files with code."""

import math

import pytest
import torch

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
    ("name", "content", "found"),
    [
        (
            "a.ckpt",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            "a pointer of Git LFS",
        ),
        ("a.pth", b"<!DOCTYPE html><html>Sign in</html>", "an HTML page"),
        ("a.ckpt", b"\x89PNG\r\n\x1a\n", "an image"),
        ("a.ckpt", b"\x08\x08\x12\x07pytorch", "an ONNX model: name it .onnx"),
        ("a.safetensors", b"", "an empty file"),
        ("a.ckpt", bytes(100), "no file of torch.save or safetensors"),
    ],
)
def test_an_error_says_what_a_file_contains_instead_of_a_checkpoint(tmp_path, name, content, found):
    """torch.load advises to load such a file with weights_only=False, and to report a bug."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read as a checkpoint: found {found}"):
        load_checkpoint(tmp_path / name)


def test_a_run_folder_in_place_of_a_checkpoint_lists_its_checkpoints(tmp_path):
    (tmp_path / "best.ckpt").touch()
    with pytest.raises(CheckpointError, match=r"expected a checkpoint, found a folder\. Checkpoints .*best\.ckpt"):
        load_checkpoint(tmp_path)
