"""The demo's data: scenes made from real photographs and real handwritten digits."""

from __future__ import annotations

import colorsys
import json
import tempfile
from collections.abc import Iterable
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
"""Raised when the recipe changes, so that scenes of an older one are built anew."""
INK_ALPHA: Final = 0.25
"""A box is tight around the pixels that the ink covers by at least this share."""
DIGIT_HEIGHT: Final = (36.0, 150.0)
"""Smallest and largest height of a digit, pixels; at most 0.7 of the scene's height."""
MIN_WIDTH: Final = 17
"""Narrower ink (a steep 1) is drawn anew: no anchor of the paper's ratios would reach it."""
MIN_CONTRAST: Final = 0.22
"""Least difference in luminance (0 to 1) between a digit's ink and nine tenths of the pixels around it."""
HELD_OUT_FROM: Final = 0.6
"""Train takes the part of each photograph to the left of this share of its width, val and test take the rest."""
Floats = NDArray[np.float32]


class DemoError(UserError):
    """The demo cannot go on; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """Where the scenes are: three COCO .json files whose images lie in folders of the same name beside them."""

    folder: Path
    train_json: Path
    val_json: Path
    test_json: Path


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image and what is on it.

    Args:
        image: uint8 RGB, (H, W, 3).
        background: the same before anything was pasted.
        boxes: float32 (G, 4), xyxy, pixels, whole numbers; G may be 0.
        labels: int64 (G,), the digit.
    """

    image: NDArray[np.uint8]
    background: NDArray[np.uint8]
    boxes: Floats
    labels: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the scenes of one split are made of: digits (D, 8, 8) from 0 to 1, their classes, parts of photographs."""

    digits: Floats
    labels: NDArray[np.int64]
    photographs: tuple[Image.Image, ...]


def load_material() -> dict[str, Material]:
    """Return each split's own digits and its own parts of the two photographs.

    Of every five digits three go to train, one to val and one to test. Val and test share the right part of the
    photographs, which train never sees.

    Raises:
        DemoError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise DemoError(
            "the demo takes its images from scikit-learn, which is not installed: pip install 'retinanet[demo]'"
        ) from error
    digits = load_digits()
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    fifth = np.arange(len(digits.target)) % 5
    material = {}
    for split, chosen in zip(SPLITS, (fifth > 1, fifth == 0, fifth == 1), strict=True):
        left, right = (0.0, HELD_OUT_FROM) if split == "train" else (HELD_OUT_FROM, 1.0)
        material[split] = Material(
            digits=(digits.images[chosen] / 16).astype(np.float32),
            labels=digits.target[chosen].astype(np.int64),
            photographs=tuple(p.crop((int(left * p.width), 0, int(right * p.width), p.height)) for p in photographs),
        )
    return material


def make_scene(material: Material, rng: np.random.Generator, *, size: tuple[int, int]) -> Scene:
    """Draw one scene of `size` (width, height): nothing on one in twelve, else 2 to 8 digits where they find room."""
    background = _background(material, rng, size)
    canvas = background.astype(np.float32)
    width, height = size
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    inked = np.zeros((height, width), dtype=bool)
    wanted = 0 if rng.random() < 1 / 12 else int(rng.integers(2, 9))
    for _ in range(4 * wanted):
        if len(boxes) == wanted:
            break
        label = int(rng.integers(len(CLASSES)))
        alpha = _ink(material.digits[rng.choice(np.flatnonzero(material.labels == label))], rng, height)
        h, w = alpha.shape
        if w < MIN_WIDTH or w > width or h > height:
            continue
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        box = (x, y, x + w, y + h)
        place = np.s_[y : y + h, x : x + w]
        # Boxes may overlap a little, ink never does: every box stays tight around ink that is all to be seen.
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
    """Return a random crop of a photograph, perhaps mirrored, of varied scale, colour and noise: (H, W, 3)."""
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


def _ink(digit: Floats, rng: np.random.Generator, scene_height: int) -> Floats:
    """Return how much of each pixel the ink of `digit` (8, 8) covers: (h, w) from 0 to 1, cut to its box."""
    low, high = DIGIT_HEIGHT
    height = float(np.exp(rng.uniform(np.log(low), np.log(min(high, 0.7 * scene_height)))))
    width = height * rng.uniform(0.85, 1.25)
    # Margins of two scanned pixels leave room for the curve of the interpolation and for the rotation.
    image = Image.fromarray(np.pad(digit, 2))
    smooth = image.resize((round(width * 12 / 8), round(height * 12 / 8)), Image.Resampling.BICUBIC)
    turned = smooth.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC)
    # A steep ramp makes a pen stroke of the blur; it is as wide as about two pixels at any size.
    ramp = 0.3 * (low / height) ** 0.5
    alpha: Floats = ((np.asarray(turned, dtype=np.float32) - (0.46 - ramp / 2)) / ramp).clip(0, 1)
    rows, columns = np.nonzero(alpha >= INK_ALPHA)
    if not len(rows):
        return alpha[:0, :0]
    return alpha[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _ink_colour(under: Floats, rng: np.random.Generator) -> Floats | None:
    """Return an RGB colour that is clearly darker or lighter than `under` (h, w, 3), or None where none can be."""
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
    """Return the intersection of two boxes as a share of the smaller one."""
    # On two tuples of integers, thousands of times: supervision's `box_iou_batch` (IOS) is for arrays of boxes.
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
    """Write scenes as JPEGs and COCO .json files, or leave them as they are when they are there already.

    The same arguments, numpy and Pillow give the same bytes. The folder appears whole or not at all.

    Args:
        folder: where to; only ever replaced when it holds nothing but scenes.
        train: how many scenes to train on.
        val: how many to choose the best weights by.
        test: how many to measure on at the end.
        size: (width, height) of a scene, pixels; at least 96 each.
        seed: another one gives other scenes.

    Raises:
        DemoError: scikit-learn is missing, or `folder` holds something else.
        ValueError: a size or a count that cannot be.
    """
    if min(size) < 96:
        raise ValueError(f"size must be at least 96 pixels on both sides, found {size}")
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    if min(counts.values()) < 1:
        raise ValueError(f"train, val and test need at least one scene each, found {counts}")
    parameters: dict[str, Any] = {
        **{"version": SCENES_VERSION, "numpy": version("numpy"), "pillow": version("pillow")},
        **{"size": list(size), "seed": seed, "counts": counts},
    }
    data = DemoData(folder=folder, **{f"{split}_json": folder / f"{split}.json" for split in SPLITS})
    if _complete(folder, parameters):
        return data
    _refuse_foreign(folder)
    material = load_material()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        built = Path(scratch) / folder.name
        for number, split in enumerate(SPLITS):
            rngs = (np.random.default_rng((seed, number, index)) for index in range(counts[split]))
            _write_split(built, split, (make_scene(material[split], rng, size=size) for rng in rngs))
        files = {p.relative_to(built).as_posix(): p.stat().st_size for p in sorted(built.rglob("*")) if p.is_file()}
        (built / MANIFEST).write_text(json.dumps({"parameters": parameters, "files": files}, indent=1))
        _put_in_place(built, folder, parameters, Path(scratch))
    return data


def _write_split(folder: Path, split: str, scenes: Iterable[Scene]) -> None:
    """Write folder/<split>/00000.jpg and so on, and folder/<split>.json."""
    (folder / split).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, scene in enumerate(scenes):
        name = f"{split}/{index:05d}.jpg"
        # 4:4:4 keeps thin coloured strokes sharp.
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
    """Whether `folder` holds all the files of scenes with these parameters, each of its right length."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return manifest["parameters"] == parameters and all(
            (folder / name).stat().st_size == length for name, length in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise DemoError(f"the scenes need a folder, but {folder} is a file: give another one")
    known = {MANIFEST, *SPLITS, *(f"{split}.json" for split in SPLITS)}
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in known) if folder.exists() else []
    if foreign:
        raise DemoError(f"{folder} holds {foreign[0]!r}, which is not of the demo's scenes: give another folder")


def _put_in_place(built: Path, folder: Path, parameters: dict[str, Any], scratch: Path) -> None:
    """Rename `built` to `folder`; what lay there moves to `scratch`. Another process may be doing the same."""
    for attempt in range(5):
        try:
            if folder.exists():
                folder.rename(scratch / f"old-{attempt}")
            built.rename(folder)
        except OSError:
            if _complete(folder, parameters):
                return  # the other process was faster, and its bytes are the same
        else:
            return
    raise DemoError(f"could not write {folder}: another process keeps changing it")
