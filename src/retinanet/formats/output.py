"""What the writers of the formats share. Boxes are xyxy in original pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from retinanet.formats.records import DetectionData, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTarget:
    """Where a dataset is written.

    Args:
        folder: folder of the annotations.
        images: path of each image, in the order of the records, for each split.
        file: the annotation file, if the user named a file instead of a folder.
    """

    folder: Path
    images: Mapping[str, list[Path]]
    file: Path | None = None


def write_text(path: Path, text: str) -> Path:
    """Write a whole file, and return its path."""
    write_atomically(path, text)
    return path


def relative_path(path: Path, folder: Path) -> str:
    """Return a path relative to a folder; absolute if it would climb further than readers follow."""
    relative = Path(os.path.relpath(path, folder))
    return (path.absolute() if relative.parts[:2] == ("..", "..") else relative).as_posix()


def common_class_ids(splits: Mapping[str, DetectionData]) -> dict[str, int]:
    """Return the id, from 0, of each class name of all splits."""
    names = dict.fromkeys(name for data in splits.values() for name in data.classes)
    return {name: number for number, name in enumerate(names)}


def objects_without_crowd(data: DetectionData, record: Record) -> Iterator[tuple[list[float], str]]:
    """Yield box and class name of the objects that are not crowd."""
    for box, label, crowd in zip(record.boxes_G4.tolist(), record.labels_G.tolist(), record.crowd_G, strict=True):
        if not crowd:
            yield box, data.classes[label]


def exact_number(value: float) -> str:
    """Return the shortest text from which a number is read back exactly."""
    return repr(int(value)) if value == int(value) else repr(value)
