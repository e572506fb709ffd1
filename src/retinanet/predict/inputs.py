"""Find the image and video files in files, folders and globs that a user names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from retinanet.errors import UserError
from retinanet.files import existing_path, local_path
from retinanet.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES


def expand_inputs(inputs: Sequence[str | Path], *, exclude: Path | None = None) -> list[Path]:
    """Return the image and video files, sorted, each file once.

    Args:
        inputs: files, folders (searched with all subfolders), globs (`**` is supported) and file:// addresses.
        exclude: folder whose files are left out of folders and globs.

    Raises:
        UserError: a path does not exist (the error suggests the nearest name), a folder or glob contains no image, or
            an input is a camera or an address of another machine.
    """
    if isinstance(inputs, str | Path):  # not the letters of a single path
        inputs = [inputs]
    found: dict[str, Path] = {}
    for entry in inputs:
        path = _local_path(str(entry))
        if path.is_file():
            images = [path]
        else:
            images = [file for file in _search(str(path)) if exclude is None or not _is_below(file, exclude)]
            if not images:
                looked_for = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
                raise UserError(f"{entry}: expected images or videos ({looked_for}), found none")
        for image in images:
            found.setdefault(os.path.abspath(image), image)  # noqa: PTH100 - resolve() would follow links
    return [found[key] for key in sorted(found)]


def _local_path(entry: str) -> Path:
    """Return the path of an input. Raises `UserError` for an address of another machine and for a camera."""
    path = local_path(entry)
    if entry.isdigit() and not path.exists():
        raise UserError(
            f"{entry}: no such file or folder. The number of a camera is no input: save the camera's frames as a video "
            "or as images first"
        )
    return path


def _search(entry: str) -> list[Path]:
    """Return the files with the suffix of an image or video in a folder, or those that match a glob."""
    path = Path(entry)
    if path.is_dir():
        files = [Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names]
    elif glob.has_magic(entry):
        files = [Path(name) for name in glob.glob(entry, recursive=True)]  # noqa: PTH207 - supports absolute patterns
    else:
        existing_path(path)
        files = [path]
    return [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and file.is_file()]


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def is_video(path: Path) -> bool:
    """Return whether a file has the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Return a sort key that compares numbers by value: frame_10 comes after frame_9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", path.as_posix()) if part]
