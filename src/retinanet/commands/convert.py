"""`retinanet convert`."""

from __future__ import annotations

from pathlib import Path

from retinanet.commands.options import Flags
from retinanet.config import ConvertConfig


def convert(source: Path, target: Path, /, *, options: Flags[ConvertConfig]) -> None:
    """Write a dataset in another format, with all its splits; says what that format cannot hold.

    `retinanet convert data.yaml data-coco --format coco`
    """
    from retinanet.data.convert import convert as convert_data

    sets, written = convert_data(source, target, options)
    for name, data in sets.items():
        for note in (*data.notes, *(str(fault) for fault in data.faults)):
            print(f"note: {note}")
        print(f"{name + ': ' if name else ''}{len(data.records):,} images, {data.num_objects:,} objects")
    for sentence in written.lost:
        print(f"lost: {sentence}")
    for path in written.files.values():
        print(f"written: {path}")
