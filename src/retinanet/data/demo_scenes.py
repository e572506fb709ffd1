"""The dataset of `retinanet demo`: images of real handwritten digits pasted into real photographs."""

from __future__ import annotations

import colorsys
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retinanet.errors import UserError

CLASSES: Final = tuple("0123456789")
SPLITS: Final = ("train", "val", "test")
MANIFEST: Final = "scenes.json"
SCENES_VERSION: Final = 1
"""Version of the scene generator. Raise it with every change of the scenes, so that older scenes are replaced."""
INK_ALPHA: Final = 0.25
"""Minimum opacity of a pixel that counts as ink. A box encloses exactly these pixels of its digit."""
DIGIT_HEIGHT: Final = (36.0, 150.0)
"""Minimum and maximum height of a digit, pixels. The height is also at most 0.7 of the scene's height."""
MIN_WIDTH: Final = 17
"""Minimum width of a digit, pixels. Narrower digits, such as an upright 1, match no anchor of the paper's ratios."""
MIN_CONTRAST: Final = 0.22
"""Minimum difference in luminance (0 to 1) between a digit's ink and 90 % of the pixels under its box."""
HELD_OUT_FROM: Final = 0.6
"""Share of a photograph's width, from the left, that the training scenes use. Val and test use the rest."""
Floats = NDArray[np.float32]


class DemoError(UserError):
    """The demo's scenes cannot be made."""


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """Paths of the demo's scenes: `folder` holds train.json, val.json and test.json, and an image folder for each."""

    folder: Path
    train_json: Path
    val_json: Path
    test_json: Path


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image with its ground truth.

    Args:
        image: uint8 RGB, (H, W, 3).
        background: the image before digits were pasted, uint8 RGB, (H, W, 3).
        boxes: float32 (G, 4), xyxy, whole pixels; G may be 0.
        labels: int64 (G,), the digit in each box.
    """

    image: NDArray[np.uint8]
    background: NDArray[np.uint8]
    boxes: Floats
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Material:
    """The source images of the scenes of one split.

    Args:
        digits: float32 (D, 8, 8), ink from 0 to 1.
        labels: int64 (D,), class id of each digit.
        photographs: RGB crops of photographs.
    """

    digits: Floats
    labels: NDArray[np.int64]
    photographs: tuple[Image.Image, ...]


def load_material() -> dict[str, Material]:
    """Return the digits and the parts of the two photographs that belong to each split.

    Of every five digits, three belong to train, one to val and one to test. Train uses the left part of each
    photograph, val and test share the right part.

    Raises:
        DemoError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise DemoError(
            "the demo uses images from scikit-learn, which is not installed: pip install 'retinanet[demo]'"
        ) from error
    digits = load_digits()
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    remainder = np.arange(len(digits.target)) % 5
    material = {}
    for split, chosen in zip(SPLITS, (remainder > 1, remainder == 0, remainder == 1), strict=True):
        left, right = (0.0, HELD_OUT_FROM) if split == "train" else (HELD_OUT_FROM, 1.0)
        material[split] = Material(
            digits=(digits.images[chosen] / 16).astype(np.float32),
            labels=digits.target[chosen].astype(np.int64),
            photographs=tuple(p.crop((int(left * p.width), 0, int(right * p.width), p.height)) for p in photographs),
        )
    return material


def demo_digit_size(rng: np.random.Generator, scene_height: int) -> tuple[float, float]:
    """Return a random width and height of a digit before its rotation, pixels: the sizes of the demo's digits."""
    low, high = DIGIT_HEIGHT
    height = float(np.exp(rng.uniform(np.log(low), np.log(min(high, 0.7 * scene_height)))))
    return height * rng.uniform(0.85, 1.25), height


def make_scene(
    material: Material,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    digits: Sequence[int] | None = None,
    digit_size: Callable[[np.random.Generator, int], tuple[float, float]] = demo_digit_size,
    min_side: int = MIN_WIDTH,
) -> Scene:
    """Return one random scene, with fewer digits than asked for if the free space does not suffice.

    Args:
        material: source images.
        rng: source of all random numbers.
        size: (width, height) of the scene, pixels.
        digits: class ids of the digits. By default, one scene in twelve has no digit, and the others have 2 to 8.
        digit_size: function of `rng` and the scene's height that returns the width and height of a digit.
        min_side: minimum side of a box, pixels.
    """
    background = _background(material, rng, size)
    canvas = background.astype(np.float32)
    width, height = size
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    inked = np.zeros((height, width), dtype=bool)
    count = len(digits) if digits is not None else 0 if rng.random() < 1 / 12 else int(rng.integers(2, 9))
    for _ in range(4 * count):
        if len(boxes) == count:
            break
        label = int(rng.integers(len(CLASSES))) if digits is None else digits[len(boxes)]
        source = material.digits[rng.choice(np.flatnonzero(material.labels == label))]
        alpha = _ink(source, rng, *digit_size(rng, height))
        h, w = alpha.shape
        if min(w, h) < min_side or w > width or h > height:
            continue
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        box = (x, y, x + w, y + h)
        place = np.s_[y : y + h, x : x + w]
        # Boxes may overlap a little, but ink must not: each box then encloses a digit that is completely visible.
        if inked[place][alpha > 0.02].any() or any(_overlap(box, other) > 0.15 for other in boxes):
            continue
        colour = _ink_colour(canvas[place], rng)
        if colour is None:
            continue
        opacity = rng.uniform(0.85, 1.0)
        canvas[place] += (opacity * alpha)[..., None] * (colour - canvas[place])
        margin = max(2, h // 16)
        rows, columns = np.nonzero(alpha > 0.02)
        for dy in (-margin, 0, margin):
            for dx in (-margin, 0, margin):
                inked[(rows + y + dy).clip(0, height - 1), (columns + x + dx).clip(0, width - 1)] = True
        boxes.append(box)
        labels.append(label)
    return Scene(
        image=np.rint(canvas).clip(0, 255).astype(np.uint8),
        background=background,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
    )


def _background(material: Material, rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a random crop of a photograph, (H, W, 3), with random scale, mirroring, colours and noise."""
    photograph = material.photographs[int(rng.integers(len(material.photographs)))]
    largest = min(photograph.width / size[0], photograph.height / size[1])
    scale = largest * rng.uniform(0.4, 1.0)
    w, h = size[0] * scale, size[1] * scale
    x, y = rng.uniform(0, photograph.width - w), rng.uniform(0, photograph.height - h)
    crop = photograph.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + w, y + h))
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(crop, dtype=np.float32) / 255
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + rng.uniform(0.2, 1.3) * (pixels - grey)
    pixels = pixels * rng.uniform(0.85, 1.15, size=3) * rng.uniform(0.7, 1.1) + rng.uniform(-0.1, 0.2)
    pixels += rng.normal(0, rng.uniform(0, 0.015), pixels.shape)
    result: NDArray[np.uint8] = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    return result


def _ink(digit: Floats, rng: np.random.Generator, width: float, height: float) -> Floats:
    """Return the opacity of an enlarged, rotated digit, (h, w) from 0 to 1, cropped to its box. `digit` is (8, 8)."""
    # Interpolation and rotation need a margin: two of the digit's 8 x 8 pixels.
    image = Image.fromarray(np.pad(digit, 2))
    smooth = image.resize((round(width * 12 / 8), round(height * 12 / 8)), Image.Resampling.BICUBIC)
    turned = smooth.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    # A steep ramp turns the blurred digit into a pen stroke with edges of about two pixels at every size.
    ramp = 0.3 * (DIGIT_HEIGHT[0] / height) ** 0.5
    alpha: Floats = ((np.asarray(turned, dtype=np.float32) - (0.46 - ramp / 2)) / ramp).clip(0, 1)
    rows, columns = np.nonzero(alpha >= INK_ALPHA)
    if not len(rows):
        return alpha[:0, :0]
    return alpha[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _ink_colour(under: Floats, rng: np.random.Generator) -> Floats | None:
    """Return an RGB colour with `MIN_CONTRAST` to the pixels `under` (h, w, 3), or None if there is no such colour."""
    luminance = (under * np.array([0.299, 0.587, 0.114], dtype=np.float32)).sum(axis=2) / 255
    dark, light = np.percentile(luminance, (5, 95))
    ranges = [(0.0, dark - MIN_CONTRAST), (light + MIN_CONTRAST, 1.0)]
    possible = [(start, stop) for start, stop in ranges if start < stop]
    if not possible:
        return None
    target = rng.uniform(*possible[int(rng.integers(len(possible)))])
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.random() ** 0.7, 1.0)
    brightness = 0.299 * red + 0.587 * green + 0.114 * blue
    colour = np.array([red, green, blue], dtype=np.float32)
    if target <= brightness:
        return colour * np.float32(255 * target / brightness)
    return (colour + (1 - colour) * np.float32((target - brightness) / (1 - brightness))) * 255


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Return the intersection of two boxes divided by the area of the smaller box."""
    # Two tuples of integers, thousands of calls: faster than supervision's `box_iou_batch`, which works on arrays.
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(w, 0) * max(h, 0) / smaller


def make_scenes(
    folder: Path,
    *,
    train: int = 400,
    val: int = 60,
    test: int = 100,
    size: tuple[int, int] = (320, 256),
    seed: int = 0,
) -> DemoData:
    """Write scenes as JPEG images and COCO .json files, unless `folder` already holds the same scenes.

    The files are byte-identical for equal arguments and equal versions of numpy and Pillow. The complete folder is
    renamed into place, so an interrupted call leaves no partial scenes.

    Args:
        folder: output folder. An existing folder is replaced only if it holds nothing but scenes.
        train: number of training scenes.
        val: number of validation scenes.
        test: number of test scenes.
        size: (width, height) of each scene, pixels, each at least 96.
        seed: seed of all random numbers.

    Raises:
        DemoError: scikit-learn is not installed, `folder` holds other files or cannot be written.
        ValueError: a side below 96 pixels or a split without scenes.
    """
    if min(size) < 96:
        raise ValueError(f"size must be at least 96 pixels on both sides, found {size}")
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    if min(counts.values()) < 1:
        raise ValueError(f"train, val and test must have at least one scene each, found {counts}")
    parameters: dict[str, Any] = {
        **{"version": SCENES_VERSION, "numpy": version("numpy"), "pillow": version("pillow")},
        **{"size": list(size), "seed": seed, "counts": counts},
    }
    data = DemoData(folder=folder, **{f"{split}_json": folder / f"{split}.json" for split in SPLITS})
    if _complete(folder, parameters):
        return data
    _refuse_other_files(folder)
    material = load_material()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        built = Path(scratch) / folder.name
        for number, split in enumerate(SPLITS):
            rngs = (np.random.default_rng((seed, number, index)) for index in range(counts[split]))
            write_split(built, split, (make_scene(material[split], rng, size=size) for rng in rngs))
        files = {p.relative_to(built).as_posix(): p.stat().st_size for p in sorted(built.rglob("*")) if p.is_file()}
        (built / MANIFEST).write_text(json.dumps({"parameters": parameters, "files": files}, indent=1))
        _move_into_place(built, folder, parameters, Path(scratch))
    return data


def write_split(folder: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Write the images folder/<split>/00000.jpg, 00001.jpg, ... and the annotations folder/<split>.json."""
    (folder / split).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, scene in enumerate(scenes):
        name = f"{split}/{index:05d}.jpg"
        # No chroma subsampling (4:4:4), which would blur thin coloured strokes.
        Image.fromarray(scene.image).save(folder / name, quality=90, subsampling=0)
        height, width = scene.image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "width": width, "height": height})
        for (x1, y1, x2, y2), label in zip(scene.boxes.astype(int).tolist(), scene.labels.tolist(), strict=True):
            w, h = x2 - x1, y2 - y1
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index + 1, "category_id": label + 1}
                | {"bbox": [x1, y1, w, h], "area": w * h, "iscrowd": 0}
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(content))


def _complete(folder: Path, parameters: dict[str, Any]) -> bool:
    """Return whether `folder` holds every file of the scenes with these parameters, in the expected file sizes."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return manifest["parameters"] == parameters and all(
            (folder / name).stat().st_size == length for name, length in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _refuse_other_files(folder: Path) -> None:
    """Raise `DemoError` if `folder` is a file, or holds a file that is not part of the scenes."""
    if folder.exists() and not folder.is_dir():
        raise DemoError(f"expected a folder for the scenes, but {folder} is a file: give another path")
    own_names = {MANIFEST, *SPLITS, *(f"{split}.json" for split in SPLITS)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in own_names) if folder.exists() else []
    if others:
        raise DemoError(
            f"expected a new folder, or one with nothing but scenes, but {folder} holds {others[0]!r}: "
            "give another folder"
        )


def _move_into_place(built: Path, folder: Path, parameters: dict[str, Any], scratch: Path) -> None:
    """Rename `built` to `folder`, and move an existing `folder` to `scratch`.

    Another process may be doing the same at the same time.
    """
    for attempt in range(5):
        try:
            if folder.exists():
                folder.rename(scratch / f"old-{attempt}")
            built.rename(folder)
        except OSError:
            if _complete(folder, parameters):
                return  # another process was faster and wrote identical files
        else:
            return
    raise DemoError(f"could not write {folder}, because another process keeps changing it: try again, or give another")
