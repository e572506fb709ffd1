"""Match images with the records of a dataset that may lie elsewhere, by the rules of `image_files`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.formats.image_files import AmbiguousImageError, FileIndex, readings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.formats.records import Record


def ids_in(records: Sequence[Record], names: Sequence[str]) -> list[int | None]:
    """Return the image id of the record of each image; None for an image without a record.

    An image has the record of its file. Without such a record, it has the record that matches the longest end of its
    path, unless that record matches a longer end of another path.

    Args:
        records: records of the dataset.
        names: paths of different images, also written on another machine.

    Raises:
        AmbiguousImageError: several records match an image equally well, or several images match one record.
    """
    id_of = {record.path: record.image_id for record in records}
    file_of = {os.path.realpath(path): path for path in id_of}
    index = FileIndex.of(tuple(id_of))
    ids: dict[str, int] = {}
    by_end: dict[Path, list[tuple[int, str]]] = {}
    for name in names:
        if (file := file_of.get(os.path.realpath(name))) is not None:
            ids[name] = id_of[file]
        elif (match := _longest_end(index, name)) is not None:
            by_end.setdefault(match[1], []).append((match[0], name))
    taken = set(ids.values())
    for file, matches in by_end.items():
        longest = max(count for count, _ in matches)
        rivals = [name for count, name in matches if count == longest]
        if id_of[file] in taken:
            continue
        if len(rivals) > 1:
            raise AmbiguousImageError(str(file), [Path(name) for name in rivals])
        ids[rivals[0]] = id_of[file]
    return [ids.get(name) for name in names]


def _longest_end(index: FileIndex, name: str) -> tuple[int, Path] | None:
    """Return the file that matches the longest end of a written path, and the number of equal parts; None: no file."""
    matches = [index.best_matches(text) for text in readings(name)]
    longest = max((count for count, _ in matches), default=0)
    files = list(dict.fromkeys(file for count, found in matches if count == longest for file in found))
    if len(files) > 1:
        raise AmbiguousImageError(name, files)
    return (longest, files[0]) if files else None
