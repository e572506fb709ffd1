"""Find the splits of a dataset: in one file (data.yaml#val), in several files or lists, or in folders."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from retinanet.errors import did_you_mean
from retinanet.formats.annotation_format import SPLIT_NAMES, DataSource
from retinanet.formats.recognition import Recognised, is_recognised, recognise
from retinanet.formats.records import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPLITS: Final = tuple(SPLIT_NAMES)


def separate_split(path: Path) -> tuple[Path, str | None]:
    """Return a path without its split, and the split: data.yaml#val gives data.yaml and val."""
    stem, sharp, split = path.name.rpartition("#")
    if not sharp or path.exists():
        return path, None
    if split not in SPLITS:
        raise DataError(f"{path}: expected train, val or test after #, found {split!r}{did_you_mean(split, SPLITS)}")
    return path.with_name(stem), split


def split_paths(path: Path, format_name: str | None) -> dict[str, Path]:
    """Return the path of each split of an existing file or folder, for `read`."""
    if below := _folders_of_splits(path):
        return below
    found = recognise(path, format_name)
    if names := found.format.splits_in_file(found.source.path):
        file = found.source.path
        return {name: file.with_name(f"{file.name}#{name}") for name in names}
    inside = found.format.splits_in_folder(path) if path.is_dir() else {}
    # A folder inside may not be recognised alone: it has no class list.
    named = {name: path.with_name(f"{path.name}#{name}") if place.is_dir() else place for name, place in inside.items()}
    return named or {"": path}


def choose_folder(path: Path, requested: str | None, *, strict: bool) -> tuple[Path, list[str]]:
    """Return the folder of the requested split and a note, or `path` itself if its splits are not folders."""
    below = _folders_of_splits(path)
    if not below:
        return path, []
    split = _nearest_split(requested or "train", list(below), path, strict=strict)
    others = ", ".join(name for name in below if name != split)
    return below[split], [f"of {path}, the split {split} was read" + (f" (there is also {others})" if others else "")]


def choose_file(
    found: Recognised, folder: Path, requested: str | None, *, images: Path | None, strict: bool
) -> tuple[Recognised, list[str]]:
    """Return the file of the requested split and a note, if a folder has a file for each split.

    A folder that can be read as a whole, such as a Pascal VOC folder, is divided only if a split is requested. Folders
    of images are no splits if the images lie elsewhere (`images`).
    """
    inside = found.format.splits_in_folder(folder) if folder.is_dir() else {}
    if not inside or (found.source.path == folder and requested is None):
        return found, []
    split = _nearest_split(requested or "train", list(inside), folder, strict=strict)
    if images is not None and inside[split].is_dir():
        return found, []
    others = ", ".join(name for name in inside if name != split)
    also = f" (there is also {others})" if others else ""
    note = f"of {folder}, {inside[split].relative_to(folder)} was read{also}"
    return dataclasses.replace(found, source=DataSource(inside[split]), why=""), [note]


def choose_split(found: Recognised, requested: str | None, *, strict: bool) -> tuple[str | None, list[str]]:
    """Return the split of a file to read, and a note if it is not the requested split."""
    file = found.source.path
    present = found.format.splits_in_file(file)
    if not present:
        return requested, []
    split = _nearest_split(requested or "train", present, file, strict=strict)
    others = [name for name in present if name != split]
    if requested is None and others:
        note = f"of {file}, the split {split} was read (there is also {', '.join(others)}: {file.name}#{others[0]})"
        return split, [note]
    return split, [] if split == (requested or split) else [f"{file} has no split {requested}: {split} was read"]


def _folders_of_splits(path: Path) -> dict[str, Path]:
    """Return the folder of each split, if a folder has no annotations of its own (Roboflow's COCO, VOC and CSV)."""
    if not path.is_dir() or is_recognised(path):
        return {}
    folders = [(split, path / name) for split, names in SPLIT_NAMES.items() for name in names]
    below = {split: folder for split, folder in folders if folder.is_dir()}
    return {split: folder for split, folder in below.items() if is_recognised(folder)}


def _nearest_split(requested: str, present: Sequence[str], source: Path, *, strict: bool) -> str:
    """Return the requested split or, unless `strict`, its replacement if it is missing. Raises `DataError`."""
    replacements = {"val": ("test",), "test": ("val",)}.get(requested, ("val", "test"))
    order: tuple[str, ...] = (requested,) if strict else (requested, *replacements)
    for split in order:
        if split in present:
            return split
    raise DataError(f"{source}: expected the split {requested!r}, found {', '.join(present)}")
