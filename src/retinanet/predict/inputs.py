"""Image and video files behind the files, folders and globs that a user names."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from retinanet.errors import UserError
from retinanet.files import existing_path
from retinanet.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES


def expand_inputs(inputs: Sequence[str | Path], *, exclude: Path | None = None) -> list[Path]:
    """Return the images behind files, folders (with all below them) and globs (`**` too): sorted, each one once.

    Raises:
        UserError: a path that is not there (with the nearest name), or a folder or glob without images.
    """
    found: dict[str, Path] = {}
    for entry in inputs:
        path = Path(entry)
        if path.is_file():
            images = [path]
        else:
            images = [file for file in _search(str(entry)) if exclude is None or not _is_below(file, exclude)]
            if not images:
                looked_for = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
                raise UserError(f"{entry}: no images or videos there (looked for {looked_for})")
        for image in images:
            found.setdefault(os.path.abspath(image), image)  # noqa: PTH100 - resolve() would follow links
    return [found[key] for key in sorted(found)]


def _search(entry: str) -> list[Path]:
    """Return the files with an image's suffix in a folder or behind a glob."""
    path = Path(entry)
    if path.is_dir():
        files = [Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names]
    elif glob.has_magic(entry):
        files = [Path(name) for name in glob.glob(entry, recursive=True)]  # noqa: PTH207 - absolute patterns too
    else:
        existing_path(path)
        files = [path]
    return [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and file.is_file()]


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def is_video(path: Path) -> bool:
    """Return whether a file is taken as a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Return what sorts frame_10 after frame_9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", path.as_posix()) if part]
