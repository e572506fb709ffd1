"""Helper functions of the tests of custom transforms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from retinanet.data import DetectionDataset, SampleKey
from retinanet.data.transforms import Scene
from retinanet.data.user_transform import apply_transform


def scene() -> Scene:
    """A 40x30 image with an object of class 0 at the left and a crowd region of class 1 at the right."""
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Scene(
        image=Image.fromarray(pixels),
        boxes_G4=torch.tensor([[2.0, 3, 12, 13], [25, 5, 38, 28]], dtype=torch.float64),
        labels_G=torch.tensor([0, 1]),
        crowd_G=torch.tensor([False, True]),
    )


def apply(transform: Any, seed: int = 0) -> Scene:
    """Return the result of a custom transform on `scene()`."""
    return apply_transform(scene(), transform, seed=seed, num_classes=2, name="my:transform", path=Path("a.png"))


def load_pixels(dataset: DetectionDataset, workers: int) -> list[np.ndarray]:
    """Return the pixels of the first six images, loaded by a `DataLoader` with fixed seeds."""
    keys = [SampleKey(index, 10 + index, 32) for index in range(6)]
    loader = DataLoader(dataset, sampler=keys, batch_size=None, num_workers=workers)
    return [sample.pixels_3HW.numpy() for sample in loader]
