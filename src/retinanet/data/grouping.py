"""Groups of images that belong together, such as the images of a patient: by a column, a folder or the file name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from retinanet.errors import ConfigError, did_you_mean, list_names

if TYPE_CHECKING:
    from retinanet.formats.records import DetectionData

_OUTER_FOLDER: Final = re.compile(r"folder:([1-9][0-9]*)")


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """The groups of each image of a dataset.

    Args:
        what: property that names the groups, in words, such as "column patient".
        names: names of the groups of each image. An image with several names connects these groups.
        notes: sentences for the user about the groups.
    """

    what: str
    names: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @cached_property
    def links(self) -> list[list[int]]:
        """Indices of the images of each group."""
        images: dict[str, list[int]] = {}
        for index, names in enumerate(self.names):
            for name in names:
                images.setdefault(name, []).append(index)
        return list(images.values())

    def sentences(self) -> list[str]:
        """Return a summary, one sentence per list item."""
        found = list(dict.fromkeys(name for names in self.names for name in names))
        sentences = [f"grouped by {self.what}: {len(found):,} groups ({list_names(found)})"]
        if single := sum(not names for names in self.names):
            sentences.append(
                f"{single:,} of {len(self.names):,} images have no {self.what} and are groups of their own"
            )
        return [*sentences, *self.notes]


def group_images(data: DetectionData, group_by: str) -> Grouping:
    """Return the groups of the images of a dataset.

    Args:
        data: dataset.
        group_by: a column of a CSV file, or a field of an image or of its annotations in another format (YOLO has
            none); `folder`, the folder of the image; `folder:1`, `folder:2`, ..., the first, second, ... folder below
            the common folder of all images; or a regular expression for the file name. An expression with a slash is
            matched with the path below the common folder of all images. The group is the first group of the
            expression, or the whole match.

    Raises:
        ConfigError: a `group_by` that is neither a column nor a regular expression, or that matches no image.
    """
    if (column := _column(data, group_by)) is not None:
        return Grouping(what=f"column {column}", names=[record.properties.get(column, ()) for record in data.records])
    if group_by == "folder":
        return _by_folder(data)
    if match := _OUTER_FOLDER.fullmatch(group_by):
        depth = int(match[1])
        parts = [Path(path).parts[:-1] for path in _paths_below_common_folder(data)]
        names = [(Path(*folders[:depth]).as_posix(),) if len(folders) >= depth else () for folders in parts]
        if not any(names):
            raise ConfigError(
                f"group_by {group_by} needs images at least {depth} folders below their common folder, found none: use "
                "folder, or a smaller number"
            )
        return Grouping(what=f"folder, level {depth}", names=names)
    return _by_expression(data, group_by)


def _column(data: DetectionData, name: str) -> str | None:
    """Return the column with a name: exactly, in other case, or the last part of a nested field (extra.patient)."""
    columns = {column for record in data.records for column in record.properties}
    if name in columns:
        return name
    wanted = name.strip().casefold()
    for near in (
        [column for column in columns if column.casefold() == wanted],
        [column for column in columns if column.casefold().rsplit(".", 1)[-1] == wanted],
    ):
        if len(near) > 1:
            raise ConfigError(
                f"group_by must name one column, found {name!r}, which may be {', '.join(sorted(near))} of "
                f"{data.source.name}: give the full name"
            )
        if near:
            return near[0]
    return None


def _by_folder(data: DetectionData) -> Grouping:
    """Return the groups of images by their folders. Links to one folder are one group."""
    folders = [os.path.realpath(record.path.parent) for record in data.records]
    names = _below_common_folder(folders, folders)
    outer = {Path(name).parts[0] for name in names if len(Path(name).parts) > 1}
    notes: tuple[str, ...] = ()
    if outer:
        notes = (
            f"the folders are nested: images of {list_names(sorted(outer))} lie in several folders and may be in "
            "several parts; --group-by folder:1 groups images by the outer folder",
        )
    return Grouping(what="folder", names=[(name,) for name in names], notes=notes)


def _by_expression(data: DetectionData, group_by: str) -> Grouping:
    columns = sorted({column for record in data.records for column in record.properties})
    near = did_you_mean(group_by, columns) if columns else ""
    listed = f"its columns are {list_names(columns)}{near}" if columns else "its images have no columns or fields"
    expected = f"group_by {group_by!r} is not a column of {data.source.name} ({listed}), not folder,"
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ConfigError(f"{expected} and not a regular expression ({error})") from error
    texts = [record.path.name for record in data.records]
    if "/" in group_by:
        texts = [path.replace(os.sep, "/") for path in _paths_below_common_folder(data)]
    matches = [pattern.search(text) for text in texts]
    found = [None if m is None else m[1 if pattern.groups else 0] for m in matches]
    if not any(found):
        where = "path" if "/" in group_by else "file name"
        example = f" (the first is {texts[0]})" if texts else ""
        raise ConfigError(
            f"{expected} and as a regular expression matches no {where}{example}. Give folder, the folder of the "
            "image; folder:1, the outer folder; or an expression such as '^[^_]+', the part of the file name "
            "before the first _"
        )
    return Grouping(what=f"match of {group_by!r}", names=[(name,) if name else () for name in found])


def _paths_below_common_folder(data: DetectionData) -> list[str]:
    paths = [os.path.abspath(record.path) for record in data.records]  # noqa: PTH100 - keeps links
    return _below_common_folder(paths, [str(Path(path).parent) for path in paths])


def _below_common_folder(paths: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Return absolute paths relative to the common folder of `folders`, or as they are if there is none (Windows)."""
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # two drives, or no images
        return list(paths)
    return [os.path.relpath(path, common) for path in paths]
