"""Copy-paste: paste objects of other training images into an image, objects of rare classes most often.

Boxes are pasted, not masks, as in "Cut, Paste and Learn" (Dwibedi et al., arXiv 1708.01642), with edges that fade out.
Shape suffixes: G objects of an image, S objects that can be pasted, K classes, H, W. Boxes are xyxy, pixels of a scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from PIL import Image, ImageOps

from retinanet import boxes, images
from retinanet.data.sampling import ImageClasses
from retinanet.data.transforms import Scene, visible_objects

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.formats.records import DetectionData

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Window = tuple[float, float, float, float]

MAX_PASTES: Final = 3
"""Maximum number of objects pasted into one image. The number is drawn uniformly from 1 to this number."""
PLACEMENTS: Final = 10
"""Number of random places tried for an object. The object is left out if all places touch an object."""
SCALES: Final = (0.8, 1.25)
"""Range of the random factor on the size of a pasted object. The logarithm of the factor is uniform."""
MIN_SIDE: Final = 4.0
"""Minimum side of an object that can be pasted: pixels of its image, and pixels of the network's input when pasted."""
MARGIN: Final = 0.1
"""Context around a pasted object, as a share of each side of its box, within the image of the object."""
MIN_FEATHER: Final = 2.0
"""Minimum width of the edge in which a pasted object fades out, pixels. Without context, the edge lies in the box."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PasteSources:
    """The objects of a dataset that can be pasted, and the probability of each class.

    Crowd regions and objects with a side below `MIN_SIDE` cannot be pasted.

    Args:
        images_S: index of each object's image, ordered by class.
        objects_S: index of the object in its image.
        ends_K: number of objects of this class and all earlier classes.
        probability_K: probability that a pasted object has this class: proportional to 1 / n(c), with n(c) objects of
            class c in the dataset, and 0 for a class without an object that can be pasted.
    """

    images_S: Integers
    objects_S: Integers
    ends_K: Integers
    probability_K: Floats

    @classmethod
    def of(cls, data: DetectionData) -> PasteSources:
        """Return the objects of `data` that can be pasted."""
        counts = [len(record.labels_G) for record in data.records]
        image_of = np.repeat(np.arange(len(counts)), counts)
        object_of = np.concatenate([np.arange(count) for count in counts])
        labels = np.concatenate([record.labels_G for record in data.records])
        corners = np.concatenate([record.boxes_G4 for record in data.records])
        is_crowd = np.concatenate([record.crowd_G for record in data.records])
        usable = np.flatnonzero(~is_crowd & (corners[:, 2:] - corners[:, :2] >= MIN_SIDE).all(axis=1))
        by_class = usable[np.argsort(labels[usable], kind="stable")]
        usable_K = np.bincount(labels[usable], minlength=len(data.classes))
        contained = ImageClasses.of(data)
        objects_K = contained.sum_by_class(contained.objects_P)
        weights_K = np.where(usable_K > 0, 1 / np.maximum(objects_K, 1), 0.0)
        return cls(
            images_S=image_of[by_class],
            objects_S=object_of[by_class],
            ends_K=np.cumsum(usable_K),
            probability_K=weights_K / max(weights_K.sum(), np.finfo(np.float64).tiny),
        )

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return the index of an image and the index of an object in this image. At least one object must exist."""
        label = rng.choice(len(self.probability_K), p=self.probability_K)
        first = self.ends_K[label - 1] if label else 0
        chosen = rng.integers(first, self.ends_K[label])
        return int(self.images_S[chosen]), int(self.objects_S[chosen])


def paste(
    scene: Scene, source: Scene, index: int, *, ratio: float, input_scale: float, flip: float, rng: np.random.Generator
) -> Scene:
    """Return the scene with a pasted object, or the unchanged scene if the object does not fit or finds no place.

    The object keeps the size that it has in the input of the network, times a random factor within `SCALES`. The pasted
    part, including its context, touches no box of the scene. Other objects of `source` that overlap the object are
    pasted with it. Such an object is ignored (a crowd region) if less than `MIN_VISIBLE_SHARE` of it is pasted.

    Args:
        scene: image that receives the object.
        source: image of the object.
        index: index of the object in `source`.
        ratio: size of a pixel of `source` in pixels of `scene`, if both are resized for the network.
        input_scale: size of a pixel of `scene` in pixels of the network's input.
        flip: probability that the object is flipped horizontally.
        rng: source of all random numbers.
    """
    box = source.boxes_G4[index].tolist()
    part = _with_context(box, source.image.size)
    width, height = part[2] - part[0], part[3] - part[1]
    low = max(SCALES[0], MIN_SIDE / (min(box[2] - box[0], box[3] - box[1]) * ratio * input_scale))
    high = min(SCALES[1], scene.image.width / (width * ratio), scene.image.height / (height * ratio))
    factor_number, flip_number = rng.random(2)
    if low > high:
        return scene
    scale = ratio * math.exp(math.log(low) + (math.log(high) - math.log(low)) * factor_number)
    size = (max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5)))
    corner = _free_place(scene, size, rng)
    if corner is None:
        return scene
    x_scale, y_scale = size[0] / width, size[1] / height
    offset = torch.tensor(part[:2] * 2, dtype=torch.float64)
    stretch = torch.tensor([x_scale, y_scale] * 2, dtype=torch.float64)
    added = visible_objects(source, (box[0], box[1], box[2], box[3]))
    added = replace(added, boxes_G4=(added.boxes_G4 - offset) * stretch)
    patch = images.resize(source.image.crop(part), size)
    inner = ((torch.tensor(box, dtype=torch.float64) - offset) * stretch).tolist()
    mask = _feathered(size, (inner[0], inner[1], inner[2], inner[3]))
    if flip_number < flip:
        patch, mask = ImageOps.mirror(patch), ImageOps.mirror(mask)
        x1_G, y1_G, x2_G, y2_G = added.boxes_G4.unbind(dim=1)
        added = replace(added, boxes_G4=torch.stack([size[0] - x2_G, y1_G, size[0] - x1_G, y2_G], dim=1))
    image = scene.image.copy()
    image.paste(patch, corner, mask)
    place = torch.tensor(corner * 2, dtype=torch.float64)
    return Scene(
        image=image,
        boxes_G4=torch.cat([scene.boxes_G4, added.boxes_G4 + place]),
        labels_G=torch.cat([scene.labels_G, added.labels_G]),
        crowd_G=torch.cat([scene.crowd_G, added.crowd_G]),
    )


def _with_context(box: list[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the part of an image of `size` that holds a box and the context around it, xyxy in whole pixels."""
    x1, y1, x2, y2 = box
    x_margin, y_margin = (max(MIN_FEATHER, MARGIN * side) for side in (x2 - x1, y2 - y1))
    return (
        max(0, math.floor(x1 - x_margin)),
        max(0, math.floor(y1 - y_margin)),
        min(size[0], math.ceil(x2 + x_margin)),
        min(size[1], math.ceil(y2 + y_margin)),
    )


def _free_place(scene: Scene, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int] | None:
    """Return the top left corner of a random part of `size` that touches no box of the scene, or None."""
    corners = rng.integers(0, [scene.image.width - size[0] + 1, scene.image.height - size[1] + 1], (PLACEMENTS, 2))
    parts = torch.from_numpy(np.concatenate([corners, corners + size], axis=1)).to(scene.boxes_G4.dtype)
    is_free = (boxes.intersection(parts[:, None], scene.boxes_G4[None]) == 0).all(dim=1)
    free = corners[is_free.numpy()].tolist()
    return (free[0][0], free[0][1]) if free else None


def _feathered(size: tuple[int, int], box: Window) -> Image.Image:
    """Return the opacity of a pasted part, 0 to 255: 255 in `box`, falling linearly to the edges of the part.

    Where the box lies less than `MIN_FEATHER` from an edge, the opacity falls over `MIN_FEATHER` pixels in the box.
    """

    def ramp(length: int, start: float, end: float) -> Floats:
        centres = np.arange(length) + 0.5
        first, last = max(start, MIN_FEATHER), max(length - end, MIN_FEATHER)
        opacity: Floats = np.minimum(1.0, np.minimum(centres / first, (length - centres) / last))
        return opacity

    opacity_HW = np.outer(ramp(size[1], box[1], box[3]), ramp(size[0], box[0], box[2]))
    return Image.fromarray(np.round(255 * opacity_HW).astype(np.uint8))
