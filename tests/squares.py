"""Small COCO dataset for tests: bright squares and dark bars on noise. Training takes a few seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.shared import CreateOnce


def make_squares(folder: Path, *, count: int, seed: int, ids: tuple[int, int] = (3, 17)) -> Path:
    """Write a COCO dataset of `count` images of 96 x 64 pixels, and return the path of its JSON file.

    Each fourth image has no objects; the other images have 1 to 3 objects.

    Args:
        folder: folder for the images and annotations.json.
        count: number of images.
        seed: seed of the scenes.
        ids: category ids of square and bar.
    """
    generator = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        pixels = generator.integers(90, 130, (64, 96, 3), dtype=np.uint8)
        for _ in range(0 if i % 4 == 3 else int(generator.integers(1, 4))):
            kind = int(generator.integers(0, 2))
            w, h = (24, 24) if kind == 0 else (40, 20)
            x, y = int(generator.integers(0, 96 - w)), int(generator.integers(0, 64 - h))
            pixels[y : y + h, x : x + w] = (250, 250, 60) if kind == 0 else (10, 20, 120)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 100,
                    "category_id": ids[kind],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        images.append({"id": i + 100, "file_name": f"{i}.png", "width": 96, "height": 64})
    categories = [{"id": ids[0], "name": "square"}, {"id": ids[1], "name": "bar"}]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture(scope="session")
def squares(create_once: CreateOnce) -> tuple[Path, Path]:
    """Return the training JSON (12 images) and the validation JSON (6 images), which tests must not change."""

    def make(folder: Path) -> None:
        make_squares(folder / "train", count=12, seed=1)
        make_squares(folder / "val", count=6, seed=2)

    folder = create_once("squares", make)
    return folder / "train" / "annotations.json", folder / "val" / "annotations.json"


def tiny_options(squares: tuple[Path, Path], output: Path) -> dict[str, Any]:
    """Return the options of a training run that takes a few seconds."""
    return {
        "train": squares[0],
        "val": squares[1],
        "output": output,
        "preset": "small",
        "pretrained": False,
        "fpn_width": 16,
        "head_width": 16,
        "head_depth": 1,
        "image_size": 64,
        "max_size": 96,
        "anchor_sizes": (16.0, 32.0, 64.0, 128.0, 256.0),
        "batch_size": 4,
        "workers": 0,
        "log_every": 1,
        "device": "cpu",
    }


@pytest.fixture
def tiny(squares: tuple[Path, Path], tmp_path: Path) -> dict[str, Any]:
    """Return the options of a training run that takes a few seconds, with an output folder for this test only."""
    return tiny_options(squares, tmp_path / "run")
