"""Find the image and video files in files, folders and globs that a user names."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from retinanet.errors import UserError
from retinanet.files import existing_path, local_path
from retinanet.formats.folder_walk import BROKEN, OTHER_KIND, REPEATED, FolderFiles, LeftOut, walk
from retinanet.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from retinanet.predict.draw import DRAWN

NOT_SEARCHED: Final = "folders that a pattern matches (give the folder itself to search it)"
RESULTS: Final = ("detections.json", "detections.csv", "Annotations", "labels")
"""Names of the results that `predict` writes beside the folder `DRAWN`; videos have a .csv file of their own name."""
DRAWINGS: Final = "images and videos that an earlier prediction drew"
OWN_OUTPUT: Final = "images and videos in the output folder"


def expand_inputs(inputs: Sequence[str | Path], *, exclude: Path | None = None) -> list[Path]:
    """Return the image and video files that `find_inputs` finds."""
    return find_inputs(inputs, exclude=exclude).files


def find_inputs(inputs: Sequence[str | Path], *, exclude: Path | None = None) -> FolderFiles:
    """Return the image and video files, sorted, each real file once, and what was left out.

    Folders and globs are searched as `folder_walk.walk` describes: links once, without hidden copies.

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
    left_out = LeftOut()
    for entry in inputs:
        path = _local_path(str(entry))
        if path.is_file():
            images = [path]
        else:
            searched = _search(str(path), left_out)
            images = [file for file in searched if exclude is None or not _is_below(file, exclude)]
            for file in set(searched) - set(images):
                left_out.add(OWN_OUTPUT, file)
            if not images:
                looked_for = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
                others = "".join(f"; {sentence}" for sentence in left_out.sentences())
                raise UserError(f"no image or video in {entry}{others}. Expected files with the suffixes {looked_for}")
        for image in images:
            real, own = os.path.realpath(image), os.path.abspath(image)  # noqa: PTH100 - resolve() would follow links
            first = found.setdefault(real, image)
            if os.path.abspath(first) != own:  # noqa: PTH100
                left_out.add(REPEATED, first if own == real else image)
                found[real] = image if own == real else first  # its own path rather than a link's
    return FolderFiles(sorted(found.values(), key=os.path.abspath), left_out)


def _local_path(entry: str) -> Path:
    """Return the path of an input. Raises `UserError` for an address of another machine and for a camera."""
    path = local_path(entry)
    if entry.isdigit() and not path.exists():
        raise UserError(
            f"no such file or folder: {entry}. The number of a camera is no input: save the camera's frames as a video "
            "or as images first"
        )
    return path


def _search(entry: str, left_out: LeftOut) -> list[Path]:
    """Return the images and videos in a folder, or those that match a glob. Add the other paths to `left_out`."""
    path = Path(entry)
    if path.is_dir():
        return _walk(path, left_out)
    if not glob.has_magic(entry):
        return [existing_path(path)]
    head, pattern = _split_pattern(path.parts)
    matches = [Path(name) for name in glob.glob(_escape_existing(head))]  # noqa: PTH207 - supports absolute patterns
    if pattern:
        return [
            file
            for folder in sorted(matches)
            if folder.is_dir()
            for file in _walk(folder, left_out)
            if _matches(file.relative_to(folder).parts, pattern)
        ]
    files = []
    for match in sorted(matches):
        if match.is_dir():
            left_out.add(NOT_SEARCHED, match)
        elif match.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and match.is_file():
            files.append(match)
        else:
            left_out.add(OTHER_KIND if match.is_file() else BROKEN, match)
    return files


def _escape_existing(parts: Sequence[str]) -> str:
    """Return a glob in which the longest beginning that exists stands for itself: folder names may have brackets."""
    for count in range(len(parts), 0, -1):
        if os.path.lexists(existing := Path(*parts[:count])):
            return str(Path(glob.escape(str(existing)), *parts[count:]))
    return str(Path(*parts))


def _walk(folder: Path, left_out: LeftOut) -> list[Path]:
    found = walk(folder, IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    left_out.update(found.left_out)
    files = []
    for file in found.files:
        if _is_drawing(file, folder):
            left_out.add(DRAWINGS, file)
        else:
            files.append(file)
    return files


def _is_drawing(file: Path, searched: Path) -> bool:
    """Return whether an earlier prediction drew a file: it lies in a folder `drawn` beside results, below `searched`.

    The boxes and labels on such an image would be detected, too.
    """
    inside = file.relative_to(searched).parts[:-1]
    drawn = [searched.joinpath(*inside[: i + 1]) for i, name in enumerate(inside) if name == DRAWN]
    return any(
        any((folder.parent / name).exists() for name in (*RESULTS, file.relative_to(folder).with_suffix(".csv")))
        for folder in drawn
    )


def _split_pattern(parts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parts of a glob before its first `**`, and those from there on."""
    start = parts.index("**") if "**" in parts else len(parts)
    return parts[:start] or (".",), parts[start:]


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob, in which `**` stands for any number of folders."""
    if not pattern or pattern == ("**",):
        return bool(pattern) or not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def is_video(path: Path) -> bool:
    """Return whether a file has the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Return a sort key that compares numbers by value: frame_10 comes after frame_9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", path.as_posix()) if part]
