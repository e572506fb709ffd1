"""Attributes of images, by which an evaluation is sliced: columns of a CSV file, brightness, sharpness, image size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.evaluate.attribute_table import AttributeTable, read_attribute_table
from retinanet.evaluate.ground_truth import EvaluationError
from retinanet.files import is_file
from retinanet.images import decode_for
from retinanet.pixel_values import FULL_DEPTH

if TYPE_CHECKING:
    from retinanet.config import EvaluateConfig
    from retinanet.data import DetectionData, Record

MOST_CATEGORIES: Final = 50
"""Maximum number of different texts of an attribute. More texts, such as comments, would make slices of few images."""
MOST_NUMBERS: Final = 10
"""Maximum number of different numbers of an attribute that are slices of their own. More are cut into quarters."""
MEASURED_SIDE: Final = 512
"""Images are reduced to this length of the shorter side before their brightness and sharpness are measured."""
LONGEST_SIDE: Final = 4096
"""Maximum length of the longer side of an image whose brightness and sharpness are measured."""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """An attribute of the images of a dataset.

    Args:
        name: name of the attribute.
        images: image ids of each value or range of values. An image without a value is in none of the lists.
    """

    name: str
    images: Mapping[str, Sequence[int]]


def image_attributes(data: DetectionData, config: EvaluateConfig) -> tuple[list[Attribute], list[str]]:
    """Return the attributes that `slices` and `slice_by` select, and notes for the user.

    Raises:
        EvaluationError: the CSV file is invalid or does not fit the data, or an image file is missing.
        ImageError: an image cannot be decoded.
    """
    attributes: list[Attribute] = []
    notes: list[str] = []
    if config.slices is not None:
        table = read_attribute_table(config.slices, data)
        notes += table.notes
        for name in table.columns:
            attribute = _from_column(table, name)
            if attribute is None:
                notes.append(
                    f"{table.path}: the column {name} has more than {MOST_CATEGORIES} different texts and was left out "
                    "of the slices"
                )
            else:
                attributes.append(attribute)
    bit_depth = config.value_range.bit_depth or (data.value_range.bit_depth if data.value_range else FULL_DEPTH)
    values = _measure(data, config.slice_by, workers=max(1, config.loading.workers), bit_depth=bit_depth)
    return attributes + [Attribute(name=name, images=cut(numbers)) for name, numbers in values.items()], notes


def _from_column(table: AttributeTable, name: str) -> Attribute | None:
    """Return the attribute of a column, or None if the column has too many different texts."""
    texts = {image_id: text for image_id, text in table.columns[name].items() if text}
    numbers = {image_id: number for image_id, text in texts.items() if (number := table.number(text)) is not None}
    if len(numbers) == len(texts) and len(set(numbers.values())) > MOST_NUMBERS:
        return Attribute(name=name, images=cut(numbers))
    groups: dict[str, list[int]] = {}
    for image_id, text in texts.items():
        groups.setdefault(text, []).append(image_id)
    return Attribute(name=name, images=groups) if len(groups) <= MOST_CATEGORIES else None


def cut(numbers: Mapping[int, float]) -> dict[str, list[int]]:
    """Return the image ids in quarters of the numbers, by ascending range: "below 20", "20 to 35", ..., "70 or more".

    The edges are the quartiles, written with 4 digits, or with more digits if edges would look equal. Equal numbers
    are in one range, so that there may be fewer than four ranges.

    Args:
        numbers: number of each image id.
    """
    values_P = np.array(list(numbers.values()), np.float64)
    if not len(values_P):
        return {}
    edges = [edge for edge in np.unique(np.quantile(values_P, (0.25, 0.5, 0.75))).tolist() if edge > values_P.min()]
    if not edges:
        return {"all equal": list(numbers)}
    digits = next(d for d in range(4, 18) if len({f"{edge:.{d}g}" for edge in edges}) == len(edges))
    texts = [f"{edge:.{digits}g}" for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(texts)]
    names = [f"below {texts[0]}", *between, f"{texts[-1]} or more"]
    groups: dict[str, list[int]] = {name: [] for name in names}
    for image_id, place in zip(numbers, np.searchsorted(edges, values_P, side="right"), strict=True):
        groups[names[place]].append(image_id)
    return groups


def _measure(data: DetectionData, names: Sequence[str], *, workers: int, bit_depth: int) -> dict[str, dict[int, float]]:
    """Return the value of each image id, for each measured attribute."""
    values: dict[str, dict[int, float]] = {}
    if {"brightness", "sharpness"} & set(names):
        if missing := [record.path for record in data.records if not is_file(record.path)]:
            raise EvaluationError(
                f"--slice-by brightness and sharpness need the image files, found no file for {len(missing):,} of "
                f"{len(data.records):,} images, the first of them {missing[0]}. Give the image folder with --images, "
                "or leave out brightness and sharpness"
            )
        with ThreadPoolExecutor(workers) as pool:
            pairs = list(pool.map(lambda record: brightness_and_sharpness(record, bit_depth=bit_depth), data.records))
        for place, name in enumerate(("brightness", "sharpness")):
            values[name] = {record.image_id: pair[place] for record, pair in zip(data.records, pairs, strict=True)}
    values["image_size"] = {record.image_id: (record.width * record.height) ** 0.5 for record in data.records}
    return {name: values[name] for name in dict.fromkeys(names)}


def brightness_and_sharpness(record: Record, *, bit_depth: int = FULL_DEPTH) -> tuple[float, float]:
    """Return the mean grey value of an image, 0 to 255, and the variance of its Laplacian.

    The Laplacian is the sum of the four neighbours of a pixel minus four times its grey value. An image without an
    inner pixel has the variance 0. The image is reduced to `MEASURED_SIDE` on its shorter side, so that sharpness does
    not depend on the resolution of larger images.

    Args:
        record: image with its size.
        bit_depth: number of bits that 16-bit images use.

    Raises:
        ImageError: the image cannot be decoded.
    """
    side = min(record.width, record.height, MEASURED_SIDE)
    image = decode_for(record.path, image_size=side, max_size=LONGEST_SIDE, bit_depth=bit_depth).image
    grey_HW = np.asarray(image.convert("L"), np.float32)
    neighbours = grey_HW[:-2, 1:-1] + grey_HW[2:, 1:-1] + grey_HW[1:-1, :-2] + grey_HW[1:-1, 2:]
    laplacian = neighbours - 4 * grey_HW[1:-1, 1:-1]
    return float(grey_HW.mean(dtype=np.float64)), float(laplacian.var(dtype=np.float64)) if laplacian.size else 0.0
