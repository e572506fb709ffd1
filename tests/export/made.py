"""A network with random weights that detects many boxes with different scores, and its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from retinanet.checkpoint.loaded_model import describe_run
from retinanet.config import PostprocessConfig, TrainConfig, resolve
from retinanet.model import RetinaNet
from retinanet.runtime.description import Description

CLASSES = ("square", "bar", "dot")
CATEGORY_IDS = (3, 17, 90)


def train_config(val: Path, **options: Any) -> TrainConfig:
    small = {
        "train": val,
        "val": val,
        "output": Path("run"),
        "backbone": "resnet18",
        "fpn_width": 16,
        "head_width": 16,
        "head_depth": 1,
        "image_size": 128,
        "max_size": 192,
        "anchor_sizes": (16.0, 32.0, 64.0, 128.0, 256.0),
    }
    return resolve(TrainConfig, {**small, **options})


def network(config: TrainConfig, seed: int = 0) -> RetinaNet:
    """Return a network whose scores spread over (0, 1), with offsets of half an anchor and more."""
    torch.manual_seed(seed)
    model = RetinaNet(num_classes=len(CLASSES), config=config.model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():  # otherwise, BatchNorm is the identity
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
        torch.nn.init.constant_(model.class_head.output.bias, -3.0)
        for head in (model.class_head, model.box_head):
            torch.nn.init.normal_(head.output.weight, generator=generator)
        outputs = model(torch.randn((1, 3, 128, 128), generator=generator))
        model.class_head.output.weight *= 1.5 / outputs.logits_NAK.std()
        model.box_head.output.weight *= 0.4 / outputs.deltas_NA4.std()
    return model


def checkpoint(path: Path, model: RetinaNet, config: TrainConfig) -> Path:
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"retinanet": describe_run(config, CLASSES, CATEGORY_IDS), "state_dict": state}, path)
    return path


def write_images(
    folder: Path, sizes: tuple[tuple[int, int], ...] = ((200, 140), (120, 180), (333, 100), (96, 64))
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for i, (width, height) in enumerate(sizes):
        coarse = np.random.default_rng(i).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        out.append(folder / f"{i}.png")
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(out[-1])
    return out


def model_and_images(root: Path) -> None:
    """Write model.ckpt and images/."""
    config = train_config(root / "gone.json")
    checkpoint(root / "model.ckpt", network(config), config)
    write_images(root / "images")


def described(K: int, **changes: Any) -> Description:
    """Return the description of an exported network with K classes, with some fields changed."""
    from retinanet.config import ImageConfig, TileConfig
    from retinanet.model.anchors import cell_anchors

    values: dict[str, Any] = {
        "classes": tuple(f"c{k}" for k in range(K)),
        "category_ids": tuple(range(1, K + 1)),
        "image_config": ImageConfig(image_size=64, max_size=96),
        "postprocess_config": PostprocessConfig(candidates_per_level=50),
        "tiling": TileConfig(),
        "levels": (3, 4, 5, 6, 7),
        "cells": tuple(
            tuple(tuple(c) for c in cell_anchors(size, scales=(1.0, 1.5), ratios=(0.5, 2.0)).tolist())
            for size in (16, 32, 64, 128, 256)
        ),
        "anchor_style": "exact",
        "uint8": False,
        "raw": False,
        "precision": "float32",
        "version": "0",
        "train_config": {"epochs": 3},
    }
    return Description(**{**values, **changes})
