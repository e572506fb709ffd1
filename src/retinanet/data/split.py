"""Split a dataset by image: every class in every part, each group of images and each near-duplicate in one part.

The method is iterative stratification (Sechidis et al., "On the Stratification of Multi-Label Data", ECML 2011),
applied to groups of images. The rarest class is distributed first. Each of its groups goes to the part that lacks the
most images of that class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retinanet.data import duplicates
from retinanet.data.duplicates import fingerprints, group_numbers
from retinanet.data.grouping import Grouping, group_images
from retinanet.errors import ConfigError
from retinanet.formats import find_writer

if TYPE_CHECKING:
    from retinanet.config import ImageFiles
    from retinanet.formats.records import DetectionData


@dataclass(frozen=True, kw_only=True)
class Division:
    """A dataset that was split into parts.

    Args:
        parts: dataset of each part, by name.
        groups: number of groups of two or more images that `group_by` kept together.
        duplicates: number of images that were kept together with their duplicates or near-duplicates.
        grouping: the groups of `group_by`, or None without `group_by`.
    """

    parts: Mapping[str, DetectionData]
    groups: int
    duplicates: int
    grouping: Grouping | None = None

    def sentences(self) -> list[str]:
        """Return a summary, one sentence per list item."""
        sentences = []
        for name, data in self.parts.items():
            labels = np.concatenate([np.empty(0, np.int64), *(r.labels_G[~r.crowd_G] for r in data.records)])
            counts = np.bincount(labels, minlength=len(data.classes))
            classes = ", ".join(f"{c} {n:,}" for c, n in zip(data.classes, counts, strict=True))
            sentences.append(f"{name}: {len(data.records):,} images, {int(counts.sum()):,} objects ({classes})")
        if self.grouping is not None:
            sentences += self.grouping.sentences()
        if self.groups:
            sentences.append(f"{self.groups:,} groups of images were kept together")
        if self.duplicates:
            sentences.append(f"{self.duplicates:,} images were kept in one part with their (near-)duplicates")
        return sentences


def check_part_format(name: str, images: ImageFiles) -> None:
    """Raise `ConfigError` if the parts cannot be written in a format, or need the image files beside the labels."""
    _, writer = find_writer(name, option="to")
    if writer.images_found_by != "path" and images == "none":
        raise ConfigError(f"{name} finds images by their location: image_files must be copy or link, found none")


def divide(
    data: DetectionData,
    shares: Mapping[str, float],
    *,
    group_by: str | None = None,
    near_duplicates: bool = True,
    seed: int = 0,
    workers: int = 2,
) -> Division:
    """Split a dataset into parts.

    Args:
        data: dataset to split.
        shares: share of the images for each part, by name; the shares sum to 1.
        group_by: property whose equal values keep images together, see `grouping.group_images`.
        near_duplicates: keep duplicates and near-duplicates together. Decodes every image.
        seed: seed of the order of images.
        workers: number of threads that decode images.

    Raises:
        ConfigError: a `group_by` that matches no image, or a part without images.
    """
    grouping = group_images(data, group_by) if group_by is not None else None
    links: list[Sequence[int]] = [] if grouping is None else list(grouping.links)
    similar: list[Sequence[int]] = []
    if near_duplicates:
        prints = fingerprints(data.records, workers=workers)
        similar = [*duplicates.identical_images(prints), *((i, j) for i, j, _ in duplicates.near_duplicates(prints))]
    groups = np.array(group_numbers(len(data.records), [*links, *similar]))
    part_P = assign_parts(_class_presence(data), groups, list(shares.values()), seed=seed)
    parts = {}
    for number, name in enumerate(shares):
        chosen = np.flatnonzero(part_P == number)
        if not len(chosen):
            kept = len({index for link in similar for index in link})
            copies = f"; --no-near-duplicates separates the {kept:,} images that are nearly identical" if kept else ""
            raise ConfigError(
                f"expected at least one image in {name}, found none: {groups.max() + 1} groups of images are too few "
                f"for {len(shares)} parts. Raise the share of {name}, choose fewer parts, or add images{copies}"
            )
        parts[name] = dataclasses.replace(data, records=tuple(data.records[i] for i in chosen), faults=(), notes=())
    by_name = group_numbers(len(data.records), links)
    return Division(
        parts=parts,
        groups=int((np.bincount(by_name) > 1).sum()),
        duplicates=len({index for link in similar for index in link}),
        grouping=grouping,
    )


def cross_validation_folds(
    data: DetectionData,
    count: int,
    *,
    group_by: str | None = None,
    near_duplicates: bool = True,
    seed: int = 0,
    workers: int = 2,
) -> tuple[list[dict[str, DetectionData]], Division]:
    """Return `count` folds with the parts train and val, and the division of the dataset into the parts val.

    Each image is in the part val of one fold, and in the part train of all other folds. The other arguments and the
    errors are those of `divide`.
    """
    shares = {f"fold{number}": 1 / count for number in range(1, count + 1)}
    division = divide(data, shares, group_by=group_by, near_duplicates=near_duplicates, seed=seed, workers=workers)
    folds = []
    for val in division.parts.values():
        held_out = {record.image_id for record in val.records}
        records = tuple(record for record in data.records if record.image_id not in held_out)
        folds.append({"train": dataclasses.replace(val, records=records), "val": val})
    return folds, division


def _class_presence(data: DetectionData) -> npt.NDArray[np.int64]:
    """Return (images, classes + 1): 1 for each class with an object in an image, and 1 in the last column."""
    presence = np.zeros((len(data.records), len(data.classes) + 1), np.int64)
    presence[:, -1] = 1
    for index, record in enumerate(data.records):
        presence[index, np.unique(record.labels_G[~record.crowd_G])] = 1
    return presence


def assign_parts(
    counts_PC: npt.NDArray[np.int64], group_P: npt.NDArray[np.int64], shares: Sequence[float], *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Return the index of the part that each image belongs to.

    Args:
        counts_PC: count of each class in each image, and 1 for the image itself in the last column.
        group_P: group number of each image, from 0.
        shares: share of each part; the shares sum to 1.
        seed: seed of the order of groups.
    """
    groups = int(group_P.max()) + 1 if len(group_P) else 0
    group_counts = np.zeros((groups, counts_PC.shape[1]), np.int64)
    np.add.at(group_counts, group_P, counts_PC)
    lacking = np.outer(np.asarray(shares), group_counts.sum(axis=0)).astype(np.float64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(groups)
    remaining = group_counts.astype(np.float64).sum(axis=0)
    part = np.full(groups, -1)
    while (open_groups := order[part[order] < 0]).size:
        open_columns = remaining > 0
        rarest = int(np.argmin(np.where(open_columns, remaining, np.inf)))
        column = rarest if open_columns.any() else group_counts.shape[1] - 1
        candidates = open_groups[group_counts[open_groups, column] > 0]
        # Large groups first: small groups then balance the parts.
        for group in candidates[np.argsort(-group_counts[candidates, -1], kind="stable")]:
            need = lacking[:, column] / np.maximum(np.asarray(shares), 1e-9)
            best = np.flatnonzero(np.isclose(need, need.max()))
            part[group] = int(best[np.argmax(lacking[best, -1])])
            lacking[part[group]] -= group_counts[group]
            remaining -= group_counts[group]
        remaining[column] = 0
    return np.asarray(part[group_P], np.int64)
