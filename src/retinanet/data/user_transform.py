"""Custom transforms: load the user's transform, seed it, apply it to one training image, and check its result.

Shape suffixes: G objects of an image, H, W; 3 is RGB.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from PIL import Image

from retinanet.errors import ConfigError
from retinanet.formats.records import DataError
from retinanet.plugins import call_factory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from retinanet.data.transforms import Scene

TOLERANCE: Final = 0.01
"""Maximum distance by which a box may leave the image before it is an error, pixels. Such a box is clipped.

The tolerance covers float32 rounding: 0.002 for a coordinate of 20,000.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSample:
    """One training image with its objects, the argument and the result of a custom transform.

    Args:
        image_HW3: uint8, RGB.
        boxes_G4: float64, xyxy, pixels of `image_HW3`.
        labels_G: int64, class ids from 0.
        is_crowd_G: bool, true for crowd regions, which the loss ignores.
    """

    image_HW3: NDArray[np.uint8]
    boxes_G4: NDArray[np.float64]
    labels_G: NDArray[np.int64]
    is_crowd_G: NDArray[np.bool_]

    def keep(self, keep_G: NDArray[Any]) -> TrainingSample:
        """Return the sample with only the objects that `keep_G` selects, a boolean mask or an array of indices."""
        return replace(
            self, boxes_G4=self.boxes_G4[keep_G], labels_G=self.labels_G[keep_G], is_crowd_G=self.is_crowd_G[keep_G]
        )


Transform = Callable[[TrainingSample], TrainingSample]
"""Type of a custom transform, which returns a changed copy of a sample. If the transform has a method
`set_random_seed(int)`, the dataset calls it before each image."""


def load_transform(spec: str) -> Transform:
    """Return the transform that the factory `package.module:factory` makes.

    Raises:
        ConfigError: a name that cannot be imported, or a factory that does not return a callable.
    """
    transform = call_factory(spec, option="transform")
    if not callable(transform):
        raise ConfigError(
            f"transform {spec}: expected a factory that returns a callable, but it returned {transform!r}"
        )
    return transform  # type: ignore[no-any-return]


def transform_seed(sample_seed: int) -> int:
    """Return the seed of a sample's transform, 0 to 2^32 - 1. It does not depend on the options of augmentation."""
    return int(np.random.SeedSequence([sample_seed, 1]).generate_state(1)[0])


def apply_transform(scene: Scene, transform: Transform, *, seed: int, num_classes: int, name: str, path: Path) -> Scene:
    """Return the scene after applying a custom transform.

    Args:
        scene: image and objects to transform.
        transform: custom transform.
        seed: argument of `set_random_seed`, and seed of the global generators of Python, numpy and torch during the
            call.
        num_classes: number of classes; each label must be below it.
        name: name of the transform, for messages.
        path: path of the image, for messages.

    Raises:
        DataError: the result is not a valid `TrainingSample`.
    """
    sample = TrainingSample(
        image_HW3=np.array(scene.image),
        boxes_G4=scene.boxes_G4.numpy().copy(),
        labels_G=scene.labels_G.numpy().copy(),
        is_crowd_G=scene.crowd_G.numpy().copy(),
    )
    try:
        with _seeded(seed):
            if hasattr(transform, "set_random_seed"):
                transform.set_random_seed(seed)
            result: Any = transform(sample)
    except Exception as error:
        error.add_note(f"raised by transform {name} on {path}")
        raise
    problem = _find_problem(result, num_classes)
    if problem:
        raise DataError(f"transform {name} on {path}: {problem}")
    height, width = result.image_HW3.shape[:2]
    boxes_G4 = np.clip(np.asarray(result.boxes_G4, np.float64), 0, [width, height, width, height])
    return replace(
        scene,
        image=Image.fromarray(np.ascontiguousarray(result.image_HW3)),
        boxes_G4=torch.from_numpy(boxes_G4),
        labels_G=torch.from_numpy(np.asarray(result.labels_G, np.int64)),
        crowd_G=torch.from_numpy(np.asarray(result.is_crowd_G, np.bool_)),
    )


def _find_problem(result: Any, num_classes: int) -> str:
    """Return the first reason why a transform's result is not a valid `TrainingSample`, or an empty string."""
    if not isinstance(result, TrainingSample):
        return f"expected a TrainingSample, found {type(result).__name__}"
    for field in fields(result):
        value: Any = getattr(result, field.name)
        if not isinstance(value, np.ndarray):
            return f"{field.name} must be a numpy array, found {type(value).__name__}"
    image, boxes, labels, crowd = result.image_HW3, result.boxes_G4, result.labels_G, result.is_crowd_G
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        return f"image_HW3 must be uint8 of shape (H, W, 3), found {image.dtype} of shape {image.shape}"
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1] or crowd.shape != boxes.shape[:1]:
        return (
            "boxes_G4, labels_G and is_crowd_G must have shapes (G, 4), (G,) and (G,), "
            f"found {boxes.shape}, {labels.shape} and {crowd.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer) or crowd.dtype != np.bool_:
        return f"labels_G must be integers and is_crowd_G booleans, found {labels.dtype} and {crowd.dtype}"
    if not np.issubdtype(boxes.dtype, np.number) or not np.isfinite(boxes).all():
        invalid_G = ~np.isfinite(boxes.astype(float)).all(axis=1)
        return f"boxes_G4 must be finite numbers, found {_first_box(boxes, invalid_G)}"
    if ((labels < 0) | (labels >= num_classes)).any():
        return f"labels_G must be from 0 to {num_classes - 1}, found {labels.min()} to {labels.max()}"
    height, width = image.shape[:2]
    outside_G = (boxes < -TOLERANCE).any(axis=1) | (boxes > np.array([width, height] * 2) + TOLERANCE).any(axis=1)
    if outside_G.any():
        return f"boxes_G4 must lie in the image, {width}x{height} pixels, found {_first_box(boxes, outside_G)}"
    empty_G = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    if empty_G.any():
        return f"boxes_G4 must have x1 < x2 and y1 < y2, found {_first_box(boxes, empty_G)}; drop such objects"
    return ""


def _first_box(boxes_G4: NDArray[Any], invalid_G: Any) -> str:
    """Return the index and the coordinates of the first invalid box."""
    index = int(np.flatnonzero(invalid_G)[0])
    return f"box {index} {boxes_G4[index].tolist()}"


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch (CPU) for the block, then restore their states."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # many transforms use it
    torch_state = torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU's generators too
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
