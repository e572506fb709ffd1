"""`retinanet split`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import SplitConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retinanet.data import DetectionData


def split(data: Annotated[Path, Parameter(help="Dataset to divide.")], /, *, options: Flags[SplitConfig]) -> None:
    """Split a dataset by image into train, val and test. Near-duplicates stay in one part; each part has every class.

    `retinanet split data.json --val 0.2 -o parts`
    `retinanet split data.json --folds 5 -o folds`
    """
    from retinanet.data import load
    from retinanet.data.split import check_part_format, cross_validation_folds, divide
    from retinanet.errors import UserError
    from retinanet.formats import write

    check_part_format(options.to, options.image_files.image_files)
    found = load(
        data,
        images=options.dataset.selection.images,
        skip_invalid=options.dataset.selection.skip_invalid,
        workers=options.loading.workers,
        **options.dataset.reading,
    )
    choices: dict[str, Any] = {
        "group_by": options.grouping.group_by,
        "near_duplicates": options.near_duplicates,
        "seed": options.random.seed,
        "workers": options.loading.workers,
    }
    output = options.folder.output
    if options.folds is not None:
        folds, division = cross_validation_folds(found, options.folds, **choices)
        if output.exists() and any(output.iterdir()):
            raise UserError(f"{output} already exists: give another path, or remove it first")
        targets: list[tuple[Path, Mapping[str, DetectionData]]] = [
            (output / name, parts) for name, parts in zip(division.parts, folds, strict=True)
        ]
    else:
        shares = {"train": 1 - options.val - options.test, "val": options.val}
        if options.test:
            shares["test"] = options.test
        division = divide(found, shares, **choices)
        targets = [(output, division.parts)]
    files = options.image_files.image_files
    written = [write(parts, folder, options.to, image_files=files) for folder, parts in targets]
    lost = dict.fromkeys(what for result in written for what in result.lost)
    for sentence in (*found.notes, *division.sentences(), *(f"lost: {what}" for what in lost)):
        print(sentence)
    for path in (path for result in written for path in result.files.values()):
        print(f"written: {path}")
