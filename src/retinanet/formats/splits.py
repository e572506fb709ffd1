"""The splits of a dataset: in one file (data.yaml#val), as lists or files, or as folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retinanet.errors import did_you_mean
from retinanet.formats.annotation_format import SPLIT_NAMES
from retinanet.formats.recognition import Recognised, is_recognised, recognise
from retinanet.formats.records import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPLITS: Final = tuple(SPLIT_NAMES)


def separate_split(path: Path) -> tuple[Path, str | None]:
    """Return a path, and the split named after its #, as in data.yaml#val."""
    stem, sharp, split = path.name.rpartition("#")
    if not sharp or path.exists():
        return path, None
    if split not in SPLITS:
        raise DataError(f"{path}: expected train, val or test after #, found {split!r}{did_you_mean(split, SPLITS)}")
    return path.with_name(stem), split


def split_paths(path: Path, format_name: str | None) -> dict[str, Path]:
    """Return the splits of an existing file or folder, each with the path that `read` takes for it."""
    if below := _folders_of_splits(path):
        return below
    found = recognise(path, format_name)
    if names := found.format.splits_in_file(found.source.path):
        file = found.source.path
        return {name: file.with_name(f"{file.name}#{name}") for name in names}
    inside = found.format.splits_in_folder(path) if path.is_dir() else {}
    return dict(inside) or {"": path}


def choose_folder(path: Path, asked: str | None, *, strict: bool) -> tuple[Path, list[str]]:
    """Return the folder of the split that is asked for, if each split has a folder, with a note."""
    below = _folders_of_splits(path)
    if not below:
        return path, []
    split = _nearest_split(asked or "train", list(below), path, strict=strict)
    others = ", ".join(name for name in below if name != split)
    return below[split], [f"of {path}, the split {split} was read" + (f" (there is also {others})" if others else "")]


def choose_split(found: Recognised, asked: str | None, *, strict: bool) -> tuple[str | None, list[str]]:
    """Return which split of a file to read, with a note if it is not the one that was asked for."""
    file = found.source.path
    present = found.format.splits_in_file(file)
    if not present:
        return asked, []
    split = _nearest_split(asked or "train", present, file, strict=strict)
    others = ", ".join(name for name in present if name != split)
    if asked is None and others:
        return split, [f"of {file}, the split {split} was read (there is also {others}; {file.name}#val)"]
    return split, [] if split == (asked or split) else [f"{file} has no split {asked}: {split} was read"]


def _folders_of_splits(path: Path) -> dict[str, Path]:
    """Return the folder of each split of a folder that holds nothing else, as Roboflow exports COCO, VOC and CSV."""
    if not path.is_dir() or is_recognised(path):
        return {}
    folders = [(split, path / name) for split, names in SPLIT_NAMES.items() for name in names]
    below = {split: folder for split, folder in folders if folder.is_dir()}
    return {split: folder for split, folder in below.items() if is_recognised(folder)}


def _nearest_split(asked: str, present: Sequence[str], source: Path, *, strict: bool) -> str:
    """Return the split that is asked for; unless `strict`, another one instead of a missing one."""
    instead = {"val": ("test",), "test": ("val",)}.get(asked, ("val", "test"))
    order: tuple[str, ...] = (asked,) if strict else (asked, *instead)
    for split in order:
        if split in present:
            return split
    raise DataError(f"{source}: expected the split {asked!r}, found {', '.join(present)}")
