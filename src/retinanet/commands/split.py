"""`retinanet split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import SplitConfig


def split(data: Annotated[Path, Parameter(help="Dataset to divide.")], /, *, options: Flags[SplitConfig]) -> None:
    """Split a dataset by image into train, val and test. Near-duplicates stay in one part; each part has every class.

    `retinanet split data.json --val 0.2 -o parts`
    """
    from retinanet.data import load
    from retinanet.data.split import check_part_format, divide
    from retinanet.formats import write

    check_part_format(options.to, options.image_files.image_files)
    found = load(
        data,
        images=options.dataset.selection.images,
        skip_invalid=options.dataset.selection.skip_invalid,
        workers=options.loading.workers,
        **options.dataset.reading,
    )
    shares = {"train": 1 - options.val - options.test, "val": options.val}
    if options.test:
        shares["test"] = options.test
    division = divide(
        found,
        shares,
        group_by=options.group_by,
        near_duplicates=options.near_duplicates,
        seed=options.random.seed,
        workers=options.loading.workers,
    )
    written = write(division.parts, options.folder.output, options.to, image_files=options.image_files.image_files)
    for sentence in (*found.notes, *division.sentences(), *(f"lost: {what}" for what in written.lost)):
        print(sentence)
    for path in written.files.values():
        print(f"written: {path}")
