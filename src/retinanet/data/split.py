"""A dataset divided by image: every class in every part, groups and near-duplicates never on both sides.

The division is that of Sechidis et al., "On the Stratification of Multi-Label Data" (ECML 2011), for groups of
images: the rarest class is dealt out first, each time to the part that lacks most of it.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retinanet.data.duplicates import fingerprints, joined, nearly_same, same
from retinanet.errors import ConfigError
from retinanet.formats import find_writer

if TYPE_CHECKING:
    from retinanet.config import ImageFiles
    from retinanet.formats.records import DetectionData


@dataclass(frozen=True, kw_only=True)
class Division:
    """A dataset in parts.

    Args:
        parts: by name.
        groups: how many groups of two images or more were kept together by `group_by`.
        alike: how many images were kept together with others that look the same.
    """

    parts: Mapping[str, DetectionData]
    groups: int
    alike: int

    def sentences(self) -> list[str]:
        """Return what came out, in words."""
        said = []
        for name, data in self.parts.items():
            counts = np.bincount([k for r in data.records for k in r.labels_G], minlength=len(data.classes))
            classes = ", ".join(f"{c} {n:,}" for c, n in zip(data.classes, counts, strict=True))
            said.append(f"{name}: {len(data.records):,} images, {data.num_objects:,} objects ({classes})")
        if self.groups:
            said.append(f"{self.groups:,} groups of images were kept together")
        if self.alike:
            said.append(f"{self.alike:,} images that look alike were kept on the same side as each other")
        return said


def check_part_format(name: str, images: ImageFiles) -> None:
    """Raise `ConfigError` if the parts cannot be written in a format, or if their images could not be found."""
    _, writer = find_writer(name, option="to")
    if writer.images_found_by != "path" and images == "none":
        raise ConfigError(f"{name} finds images by their place: images must be copy or link")


def divide(
    data: DetectionData,
    shares: Mapping[str, float],
    *,
    group_by: str | None = None,
    near_duplicates: bool = True,
    seed: int = 0,
    workers: int = 2,
) -> Division:
    """Divide a dataset.

    Args:
        data: what to divide.
        shares: of the images, for each part; they sum to 1.
        group_by: images that agree in this stay together: a column of the CSV, a field of COCO's images, `folder`,
            or a regular expression that is searched in the file name (its first group, if it has one).
        near_duplicates: keep images that look the same together; decodes all of them.
        seed: for ties.
        workers: threads that decode.

    Raises:
        ConfigError: a `group_by` that fits nothing; a part that would get no image.
    """
    keys = group_keys(data, group_by) if group_by is not None else None
    links: list[Sequence[int]] = []
    if near_duplicates:
        prints = fingerprints(data.records, workers=workers)
        links = [*same(prints), *((i, j) for i, j, _ in nearly_same(prints))]
    groups = np.array(joined(len(data.records), links, keys))
    part_P = assign(_contents(data), groups, list(shares.values()), seed=seed)
    parts = {}
    for number, name in enumerate(shares):
        chosen = np.flatnonzero(part_P == number)
        if not len(chosen):
            raise ConfigError(f"{name} would get no image: {groups.max() + 1} groups of images are too few")
        parts[name] = dataclasses.replace(data, records=tuple(data.records[i] for i in chosen), faults=(), notes=())
    by_key = joined(len(data.records), [], keys)
    return Division(
        parts=parts,
        groups=int((np.bincount(by_key) > 1).sum()),
        alike=len({place for link in links for place in link}),
    )


def group_keys(data: DetectionData, group_by: str) -> list[Hashable]:
    """Return what each image agrees in with others of its group, None for an image on its own."""
    if group_by == "folder":
        return [str(record.path.parent) for record in data.records]
    if (column := _column(data, group_by)) is not None:
        return [column.get(record.image_id, column.get(record.path.name)) for record in data.records]
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ConfigError(
            f"group_by: no column of that name, and no regular expression: {group_by!r} ({error})"
        ) from error
    found = [pattern.search(record.path.name) for record in data.records]
    keys: list[Hashable] = [None if m is None else m[1 if pattern.groups else 0] for m in found]
    if all(not key for key in keys):
        raise ConfigError(f"group_by: {group_by!r} is no column and is found in no file name such as {_first(data)}")
    return [key or None for key in keys]


def _first(data: DetectionData) -> str:
    return data.records[0].path.name if data.records else ""


def _column(data: DetectionData, name: str) -> dict[Hashable, Any] | None:
    """Return the values of a column by image id (COCO) or file name (CSV), None where there is no such column."""
    suffix = data.source.suffix.lower()
    if suffix == ".json":
        content = json.loads(data.source.read_bytes())
        entries = content.get("images", []) if isinstance(content, dict) else []
        if any(isinstance(e, dict) and name in e for e in entries):
            return {e["id"]: e.get(name) for e in entries if isinstance(e, dict) and "id" in e}
    if suffix == ".csv":
        with data.source.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
        header = [cell.strip() for cell in rows[0]] if rows else []
        if name in header:
            place = header.index(name)
            return {row[0].replace("\\", "/").rsplit("/", 1)[-1]: row[place] for row in rows[1:] if len(row) > place}
    return None


def _contents(data: DetectionData) -> npt.NDArray[np.int64]:
    """Return for each image which classes it shows, and 1 for itself: (images, classes + 1)."""
    shown = np.zeros((len(data.records), len(data.classes) + 1), np.int64)
    shown[:, -1] = 1
    for place, record in enumerate(data.records):
        shown[place, np.unique(record.labels_G)] = 1
    return shown


def assign(
    contents_PC: npt.NDArray[np.int64], group_P: npt.NDArray[np.int64], shares: Sequence[float], *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Return the part of each image.

    Args:
        contents_PC: what each image counts for, the images themselves in the last column.
        group_P: group number of each image, from 0.
        shares: of each part, summing to 1.
        seed: for ties.
    """
    groups = int(group_P.max()) + 1 if len(group_P) else 0
    of_group = np.zeros((groups, contents_PC.shape[1]), np.int64)
    np.add.at(of_group, group_P, contents_PC)
    lacking = np.outer(np.asarray(shares), of_group.sum(axis=0)).astype(np.float64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(groups)
    left = of_group.astype(np.float64).sum(axis=0)
    part = np.full(groups, -1)
    while (open_groups := order[part[order] < 0]).size:
        there = left > 0
        column = int(np.argmin(np.where(there, left, np.inf))) if there.any() else of_group.shape[1] - 1
        candidates = open_groups[of_group[open_groups, column] > 0]
        # large groups first: the small ones even out what these leave
        for group in candidates[np.argsort(-of_group[candidates, -1], kind="stable")]:
            need = lacking[:, column] / np.maximum(np.asarray(shares), 1e-9)
            best = np.flatnonzero(np.isclose(need, need.max()))
            part[group] = int(best[np.argmax(lacking[best, -1])])
            lacking[part[group]] -= of_group[group]
            left -= of_group[group]
        left[column] = 0
    return np.asarray(part[group_P], np.int64)
