"""`retinanet convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import ConvertConfig


def convert(
    source: Annotated[Path, Parameter(help="Dataset to read.")],
    target: Annotated[Path, Parameter(help="Folder to write. For one split as COCO or CSV, also a file.")],
    /,
    *,
    options: Flags[ConvertConfig],
) -> None:
    """Convert a dataset, with all its splits, to another annotation format. Details that it cannot store are listed.

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
