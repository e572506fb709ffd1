"""Fixtures of the tests of `retinanet.data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet import data
from retinanet.data import DetectionData

Write = Callable[..., Path]


@pytest.fixture
def many(write_voc: Write) -> DetectionData:
    """40 small images of 8 patients, 5 images each. Every image shows a cat, every fourth image also a dog."""
    cat, dog = ("cat", (1, 2, 30, 40)), ("dog", (5, 5, 20, 20))
    content = {f"p{i // 5}_{i % 5}": [cat, dog] if i % 4 == 0 else [cat] for i in range(40)}
    root = write_voc(content, folder="patients")
    rng = np.random.default_rng(0)  # noise images, so that no two are near-duplicates
    for path in (root / "JPEGImages").iterdir():
        noise = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 48), Image.Resampling.NEAREST).save(path)
    return data.load(root)
