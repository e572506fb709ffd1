"""Functions shared by the writers of the formats. Boxes are xyxy in original pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.files import path_text, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from retinanet.formats.records import DetectionData, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTarget:
    """Destination of a written dataset.

    Args:
        folder: folder of the annotations.
        images: paths of the images of each split, in the order of the records.
        file: annotation file, if the user named a file instead of a folder.
    """

    folder: Path
    images: Mapping[str, list[Path]]
    file: Path | None = None


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically and return its path."""
    write_atomically(path, text)
    return path


def relative_path(path: Path, folder: Path) -> str:
    """Return a path relative to a folder, or absolute if it starts with `../..`, which readers refuse."""
    relative = Path(os.path.relpath(path, folder))
    return path_text(path.absolute() if relative.parts[:2] == ("..", "..") else relative)


def common_class_ids(splits: Mapping[str, DetectionData]) -> dict[str, int]:
    """Return the class id, from 0, of each class name in the splits."""
    names = dict.fromkeys(name for data in splits.values() for name in data.classes)
    return {name: number for number, name in enumerate(names)}


def objects_without_crowd(data: DetectionData, record: Record) -> Iterator[tuple[list[float], str]]:
    """Yield the box and the class name of each object that is not a crowd region."""
    for box, label, crowd in zip(record.boxes_G4.tolist(), record.labels_G.tolist(), record.crowd_G, strict=True):
        if not crowd:
            yield box, data.classes[label]


def exact_number(value: float) -> str:
    """Return the shortest text that parses to exactly this number."""
    return repr(int(value)) if value == int(value) else repr(value)
