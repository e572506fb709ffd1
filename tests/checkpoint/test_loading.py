"""Tests of `load_checkpoint`."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from retinanet.checkpoint.loading import load_checkpoint
from retinanet.model import RetinaNet

SMALL = {"fpn_width": 8, "head_width": 8, "head_depth": 1}


def test_loading_builds_timms_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first load also builds the network to find the strides of its maps. The loaded tensors have memory."""
    config = {"backbone": "test_resnet", **SMALL}
    model = RetinaNet(num_classes=1, **config)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    entry = {"format": 1, "version": "0", "classes": ["a"], "category_ids": [1], "config": config}
    torch.save({"state_dict": state, "retinanet": entry}, tmp_path / "m.ckpt")
    load_checkpoint(tmp_path / "m.ckpt")
    calls, create = [], timm.create_model
    monkeypatch.setattr("timm.create_model", lambda *args, **options: calls.append(args) or create(*args, **options))
    random_state = torch.get_rng_state()
    saved = load_checkpoint(tmp_path / "m.ckpt")
    assert len(calls) == 1
    assert torch.equal(torch.get_rng_state(), random_state)
    images_N3HW = torch.randn(1, 3, 64, 64)
    assert torch.equal(saved.model(images_N3HW).logits_NAK, model.eval()(images_N3HW).logits_NAK)
    assert not any(value.is_meta for value in saved.model.state_dict().values())
    assert all(parameter.requires_grad for parameter in saved.model.parameters())
