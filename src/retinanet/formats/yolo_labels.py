"""Find the label file of each image of a YOLO dataset, and label files without an image."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from retinanet.formats.folder_walk import listed_files, walk
from retinanet.formats.image_files import FileIndex
from retinanet.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from retinanet.formats.builder import DatasetBuilder

_NOT_LABELS: Final = frozenset(
    ("classes.txt", "readme.txt", "obj.names", "train.txt", "val.txt", "valid.txt", "test.txt")
)


def mirrors(path: Path, *, of: str = "images", to: str = "labels") -> Iterator[Path]:
    """Yield a path with its last folder `images` replaced by `labels`, with an earlier one replaced, and as it is."""
    parts = path.parts
    for index in range(len(parts) - 1, -1, -1):
        if parts[index].lower() == of:
            in_same_case = {of.upper(): to.upper(), of.capitalize(): to.capitalize()}.get(parts[index], to)
            for name in dict.fromkeys((in_same_case, to)):
                yield Path(*parts[:index], name, *parts[index + 1 :])
    yield path


def label_folders(folder: Path) -> list[Path]:
    """Return the existing folders that may hold the labels of the images in a folder."""
    return [place for place in mirrors(folder) if place.is_dir()]


class LabelFinder:
    """Finds the label file of an image: in the folder `labels` that corresponds to its folder `images`, else beside it.

    Names are compared in one Unicode form. If the images lie elsewhere (`folders`), the label file whose whole path
    below one of these folders is the end of the image's path is taken as well.
    """

    def __init__(self, folders: Sequence[Path] | None = None) -> None:
        self.folders = folders or []
        self.index = FileIndex(self.folders, {".txt"}, by_stem=True)
        self._names: dict[str, dict[str, str]] = {}

    def find(self, image: Path) -> Path | None:
        """Return the label file of an image, or None if there is none."""
        for place in mirrors(image):
            for name in (f"{place.name}.txt", f"{place.stem}.txt"):  # a.jpg.txt belongs to a.jpg only
                if (found := self._existing(place.with_name(name))) is not None:
                    return found
        count, files = self.index.best_matches(image.with_suffix("").as_posix()) if self.folders else (0, [])
        for file in files:
            if any(count >= len(file.relative_to(f).parts) for f in self.folders if file.is_relative_to(f)):
                return file
        return None

    def _existing(self, path: Path) -> Path | None:
        """Return the existing path with equal names, which may be stored in another Unicode form."""
        if os.path.exists(path):  # noqa: PTH110 - False for a name that no file system accepts
            return path
        folder = None if path.parent == path else self._existing(path.parent)
        if folder is None:
            return None
        if (names := self._names.get(str(folder))) is None:
            names = {_key(name): name for name in _names_in(folder)}
            self._names[str(folder)] = names
        name = names.get(_key(path.name))
        return None if name is None else folder / name


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are enough
    except OSError:
        return []


def _key(name: str) -> str:
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", name))  # noqa: PTH122
    return stem + suffix.lower()


def expected_label(image: Path) -> Path:
    """Return the path where the label file of an image is expected first."""
    return next(mirrors(image)).with_suffix(".txt")


def add_labels_without_image(
    builder: DatasetBuilder, used: Iterable[Path], folders: Iterable[Path], elsewhere: Iterable[Path]
) -> None:
    """Add a fault for each label file without an image, and a note with the number of labels of other images.

    Args:
        builder: builder of the dataset.
        used: label files of the images.
        folders: folders whose images were all taken.
        elsewhere: folders of labels whose images lie elsewhere.
    """
    used_paths = {os.path.abspath(path) for path in used}  # noqa: PTH100 - resolve() would follow links
    places = {os.path.dirname(path) for path in used_paths}  # noqa: PTH120
    files = {path for place in places for path in listed_files(place, {".txt"})}
    whole = [*elsewhere, *(place for folder in folders for place in label_folders(folder) if place != folder)]
    files |= {os.path.abspath(path) for place in whole for path in walk(place, {".txt"}).files}  # noqa: PTH100
    not_listed = []
    image_names: dict[Path, set[str]] = {}
    for path in map(Path, sorted(files - used_paths)):
        if path.name.lower() in _NOT_LABELS:
            continue
        if path.parent not in image_names:
            image_names[path.parent] = _image_names(path.parent)
        if unicodedata.normalize("NFC", path.stem) in image_names[path.parent]:
            not_listed.append(path)
            continue
        what = f"labels without an image: expected an image named {path.stem}, found none"
        builder.add_fault(path, "", what, "Add the image, remove the file, or leave the file out with --skip-invalid")
    if not_listed:
        count = f"{len(not_listed):,} {'label file' if len(not_listed) == 1 else 'label files'}"
        builder.notes.append(
            f"not read, label files of images that are not part of the split: {count}, such as {not_listed[0]}"
        )


def _image_names(labels: Path) -> set[str]:
    """Return the names with and without suffix, in Unicode form NFC, of the images of a folder of label files."""
    return {
        unicodedata.normalize("NFC", name)
        for place in mirrors(labels, of="labels", to="images")
        for image in map(Path, listed_files(str(place), IMAGE_SUFFIXES))
        for name in (image.stem, image.name)
    }
