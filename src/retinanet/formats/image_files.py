"""Find the images of a dataset."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from retinanet import images as image_io
from retinanet.files import AllowedFolders, is_file
from retinanet.formats.text import LARGEST_SIDE, finite_number, read_lines
from retinanet.images import IMAGE_SUFFIXES
from retinanet.parse import shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTSIDE_ADVICE: Final = (
    "Move the image there, give its folder with --images, or give --allow-outside if you trust the annotation file"
)
"""Advice for an image outside the allowed folders."""
_HASH_PREFIX: Final = re.compile(r"^[0-9a-f]{8}-")
"""Prefix that Label Studio adds to the name of an uploaded image."""


class ImageFinder:
    """Finds the image that an annotation file names.

    In each folder, three names are tried in this order: the name as written (with / for \\), its last part, and its
    last part without the prefix that Label Studio adds to uploads. If none of these files exists, the folders are
    searched recursively.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [folder for folder in folders if folder.is_dir()] or list(folders[:1])
        self._below: dict[str, Path] | None = None

    @classmethod
    def for_file(cls, file: Path, images: Path | None) -> ImageFinder:
        """Return a finder for the images of an annotation file: in `images`, or beside the file and in images/."""
        return cls([images] if images is not None else [file.parent, file.parent / "images"])

    def find(self, name: str) -> Path:
        """Return the path of an image. If it does not exist, return the path where it was expected."""
        written = Path(name.replace("\\", "/"))
        if written.is_absolute() and is_file(written):
            return written
        relative = Path(*written.parts[1:]) if written.is_absolute() else written
        for candidate in dict.fromkeys((relative, Path(relative.name), Path(_HASH_PREFIX.sub("", relative.name)))):
            for folder in self.folders:
                if is_file(folder / candidate):
                    return folder / candidate
        original = unquote(name, errors="surrogateescape")  # `files.path_text` writes bytes that are not UTF-8 as %XX
        if original != name and relative.name not in self.below() and is_file(found := self.find(original)):
            return found
        return self.below().get(relative.name, self.folders[0] / relative)

    def below(self) -> dict[str, Path]:
        """Return all images in the folders and their subfolders, by file name."""
        if self._below is None:
            self._below = {path.name: path for folder in reversed(self.folders) for path in images_below(folder)}
        return self._below


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and its subfolders, sorted."""
    # rglob would raise if a folder disappears during the search, as below "/".
    names = (Path(place, name) for place, _, files in os.walk(folder) for name in files)
    return sorted(path for path in names if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def is_list_of_images(path: Path) -> bool:
    """Return whether the first line of a text file is the path of an image that includes a folder."""
    first = next((text for _, text in read_lines(path)), "")
    return Path(first).suffix.lower() in IMAGE_SUFFIXES and ("/" in first or "\\" in first)


def image_size(path: Path, width: Any, height: Any) -> tuple[int, int]:
    """Return the annotated width and height in pixels, or the size of the image file if they are invalid.

    Raises:
        ImageError: the annotated size is invalid and the image file cannot be read.
    """
    w, h = finite_number(width), finite_number(height)
    if w is not None and h is not None and 1 <= w <= LARGEST_SIDE and 1 <= h <= LARGEST_SIDE:
        return int(w), int(h)
    return image_io.read_size(path)


def outside_fault(allowed: AllowedFolders, path: Path) -> str | None:
    """Return the fault of an image outside the allowed folders, or None if the image lies inside."""
    if allowed.contains(path):
        return None
    return f"expected an image below {allowed.folders[0]}, found {shorten(str(path))[1:-1]}, which is outside of it"
