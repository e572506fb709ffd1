"""`retinanet split`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from retinanet.commands.options import Flat, OutputFolder
from retinanet.config import SplitConfig


@dataclass(frozen=True, kw_only=True)
class SplitFlags(SplitConfig):
    """The flags of `retinanet split`."""

    output: OutputFolder


def split(data: Path, /, *, options: Annotated[SplitFlags, Flat]) -> None:
    """Divide a data set by picture: every class on both sides, groups and near-duplicates on one.

    `retinanet split data.json --val 0.2 -o parts`
    """
    from retinanet.data import load
    from retinanet.data.split import check_part_format, divide
    from retinanet.formats import write

    check_part_format(options.to, options.pictures)
    found = load(data, images=options.images, skip_bad=options.skip_bad, workers=options.workers, **options.reading)
    shares = {"train": 1 - options.val - options.test, "val": options.val}
    if options.test:
        shares["test"] = options.test
    division = divide(
        found,
        shares,
        group_by=options.group_by,
        near_duplicates=options.near_duplicates,
        seed=options.seed,
        workers=options.workers,
    )
    written = write(division.parts, options.output, options.to, pictures=options.pictures)
    for sentence in (*found.notes, *division.sentences(), *(f"lost: {what}" for what in written.lost)):
        print(sentence)
    for path in written.files.values():
        print(f"written: {path}")
