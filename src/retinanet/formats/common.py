"""What the readers share: which classes are wanted, where pictures lie, and how a data set is put together."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from retinanet import images as pictures
from retinanet.errors import did_you_mean
from retinanet.formats.records import SKIP_OBJECT, DataError, DetectionData, Fault, Record, unknown_class
from retinanet.parse import shorten

IMAGE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".ppm", ".pgm", ".avif"),
)
ALLOW: Final = "Move it there, give its folder with --images, or give --allow-outside if you trust the file"
"""How to go on with a picture that lies outside."""
LARGEST_SIDE: Final = 2**31 - 1
"""No picture is wider or higher, no class id larger: what a file says beyond it is no number of pixels."""
_HASH_PREFIX: Final = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of a picture that was uploaded."""


@dataclass(slots=True)
class Wanted:
    """Which of a data set's classes are read, and under what names.

    Args:
        only: the class list to use (a model's, the training data's): an object of another class is a fault.
        keep: the classes to keep, by their new names; the others' objects are left out. Empty: all.
        ignore: the classes whose objects are left out, by their new names.
        rename: new names of classes. Two classes renamed to one become one.
    """

    only: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    _written: Counter[str] = field(default_factory=Counter)

    def name(self, written: str) -> str | None:
        """Return the name of a class as it is to be, None if its objects are left out; and remember it."""
        self._written[written] += 1
        name = self.rename.get(written, written)
        return None if name in self.ignore or (self.keep and name not in self.keep) else name

    def names(self, written: Iterable[str]) -> tuple[str, ...]:
        """Return the class list for the classes that a data set lists, each once and in order."""
        listed = list(written)
        for name in listed:
            self._written[name] += 0  # listed, although no object may have it
        kept = [self.rename.get(name, name) for name in listed]
        if self.only is not None:
            return self.only
        return tuple(dict.fromkeys(n for n in kept if n not in self.ignore and (not self.keep or n in self.keep)))

    def fault(self, name: str) -> str | None:
        """Return what is wrong with a class, or None."""
        return unknown_class(name, self.only) if self.only is not None and name not in self.only else None

    def notes(self, source: Path) -> list[str]:
        """Return what was left out or renamed, in words.

        Raises:
            DataError: a class was named that the data does not have.
        """
        renamed = {self.rename.get(name, name) for name in self._written}
        for option, given, known in (
            ()
            if self.only is not None  # validation data need not have every class
            else (
                ("rename", self.rename, set(self._written)),
                ("classes", self.keep, renamed),
                ("ignore_classes", self.ignore, renamed),
            )
        ):
            for name in given:
                if name not in known:
                    have = ", ".join(sorted(known)[:20]) or "none"
                    near = did_you_mean(name, known)
                    raise DataError(f"{source}: {option} names {name!r}, the classes are {have}{near}")
        out = Counter[str]()
        for written, count in self._written.items():
            name = self.rename.get(written, written)
            if count and (name in self.ignore or (self.keep and name not in self.keep)):
                out[name] += count
        said = [f"{count:,} objects of {name} were left out, as asked" for name, count in sorted(out.items())]
        return said + [f"{old} was renamed {new}" for old, new in self.rename.items() if old in self._written]


@dataclass(frozen=True, slots=True)
class Fence:
    """Which files an annotation file may name by climbing out of its folder: it may be a stranger's.

    Those below its own folder, below the folder above (annotations/ beside images/), and below the folder that the user
    names as that of the pictures. Absolute paths are taken as they are: CSV files and our own `split` hold them for
    honest reasons, and whoever reads them sees where they lead. Symbolic links are followed: whoever put the data there
    made them, not the file.
    """

    folders: tuple[Path, ...]
    """Absolute. Empty: any file."""

    @classmethod
    def around(cls, source: Path, images: Path | None = None, *, allow_outside: bool = False) -> Fence:
        """Return the fence of an annotation file or of a folder of them."""
        if allow_outside:
            return cls(())
        own = _walked(source if source.is_dir() else source.parent)
        places = [own, own.resolve()]
        above = [place.parent for place in places if place.parent != place.parent.parent]  # not the root of the disk
        given = [] if images is None else [_walked(images)]
        return cls(tuple(dict.fromkeys((*given, *places, *above))))

    def holds(self, path: Path) -> bool:
        """Return whether a file may be named."""
        if not self.folders or ".." not in path.parts:
            return True
        try:
            place = _walked(path)
        except (OSError, RuntimeError, ValueError):  # a circle of links, a name that no disk can hold
            return False
        return any(place.is_relative_to(folder) for folder in self.folders)

    def fault(self, path: Path) -> str | None:
        """Return what is wrong with a file that may not be named, or None."""
        if self.holds(path):
            return None
        return f"expected a picture below {self.folders[0]}, found {shorten(str(path))[1:-1]}, which climbs out of it"


def _walked(path: Path) -> Path:
    """Return an absolute path without `..`, each taken as the disk takes it: behind a link, from where that leads."""
    absolute = path.absolute()
    if ".." not in absolute.parts:
        return absolute
    here = Path(absolute.anchor)
    for part in absolute.parts[1:]:
        if part != "..":
            here /= part
        else:
            here = (here.resolve() if here.is_symlink() else here).parent
    return here


@dataclass(slots=True)
class Labelled:
    """An object as a file holds it: xyxy in original pixels, cut to its picture."""

    number: int
    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False
    area: float | None = None


@dataclass(slots=True)
class ImageEntry:
    """A picture as a file lists it."""

    path: Path
    width: int
    height: int
    objects: list[Labelled] = field(default_factory=list)


@dataclass(slots=True)
class Reading:
    """A data set while it is read.

    Args:
        source: where from.
        wanted: its classes.
        images: the folder of the pictures, if it was given.
        allow_outside: let the annotations name pictures anywhere on the disk.
        pictures: those that can be used.
        faults: what cannot.
        notes: what the user should know, a sentence each.
    """

    source: Path
    wanted: Wanted
    images: Path | None = None
    allow_outside: bool = False
    pictures: list[ImageEntry] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fence: Fence = field(init=False)

    def __post_init__(self) -> None:
        self.fence = Fence.around(self.source, self.images, allow_outside=self.allow_outside)

    def outside(self, path: Path, file: Path, where: str) -> bool:
        """Return whether a picture may not be named, and note it as a fault if so."""
        if (what := self.fence.fault(path)) is not None:
            self.fault(file, where, what, ALLOW)
        return what is not None

    def fault(self, file: Path, where: str, what: str, advice: str) -> None:
        """Note a fault."""
        self.faults.append(Fault(file=file, where=where, what=what, advice=advice))

    def note_reduced(self, count: int) -> None:
        """Note how many shapes were more than a box, if any."""
        if count:
            self.notes.append(f"{count:,} polygons and other shapes were reduced to the boxes around them")

    def data(self, names: Sequence[str] | None = None, ids: Mapping[str, int] | None = None) -> DetectionData:
        """Return the data set.

        Args:
            names: the classes as the data set lists them; None where it lists none: those found, sorted.
            ids: the category id of each class; 1, 2, ... unless given. A class without one gets the next unused.
        """
        if names is None:
            classes = self.wanted.names(())
            if self.wanted.only is None:
                classes = tuple(sorted({o.name for picture in self.pictures for o in picture.objects}))
        else:
            classes = self.wanted.names(names)
        label_of = {name: label for label, name in enumerate(classes)}
        for picture in self.pictures:
            for one in [o for o in picture.objects if o.name not in label_of]:
                picture.objects.remove(one)
                what = unknown_class(one.name, classes)
                self.fault(self.source, f"object {one.number} of {picture.path.name}", what, SKIP_OBJECT)
        return DetectionData(
            records=tuple(_record(i, picture, label_of) for i, picture in enumerate(self.pictures, 1)),
            classes=classes,
            category_ids=category_ids(classes, ids) if ids is not None else tuple(range(1, len(classes) + 1)),
            source=self.source,
            faults=tuple(self.faults),
            notes=(*self.notes, *self.wanted.notes(self.source)),
        )


def category_ids(classes: Sequence[str], ids: Mapping[str, int]) -> tuple[int, ...]:
    """Return the category id of each class; one without gets an id that no class of the file has."""
    unused = max(ids.values(), default=0)
    found = []
    for name in classes:
        if name not in ids:
            unused += 1
        found.append(ids.get(name, unused))
    return tuple(found)


def _record(image_id: int, picture: ImageEntry, label_of: Mapping[str, int]) -> Record:
    objects = picture.objects
    boxes_G4 = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    own = (boxes_G4[:, 2] - boxes_G4[:, 0]) * (boxes_G4[:, 3] - boxes_G4[:, 1])
    return Record(
        path=picture.path,
        width=picture.width,
        height=picture.height,
        boxes_G4=boxes_G4,
        labels_G=np.array([label_of[o.name] for o in objects], np.int64),
        crowd_G=np.array([o.crowd for o in objects], np.bool_),
        areas_G=np.array([a if o.area is None else o.area for o, a in zip(objects, own, strict=True)], np.float64),
        annotation_ids=tuple(o.number for o in objects),
        image_id=image_id,
    )


class ImageFinder:
    """Finds the picture that a file names.

    Tried in this order, in each folder: the name as written (with / for \\), its last part, and that without the
    eight letters that Label Studio puts before the names of uploads. Folders are searched as deep as they go only
    when the name alone does not lead to a file.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self.places = [place for place in places if place.is_dir()] or list(places[:1])
        self._below: dict[str, Path] | None = None

    def find(self, name: str) -> Path:
        """Return the path of a picture; where there is none, the one it should have."""
        written = Path(name.replace("\\", "/"))
        if written.is_absolute() and is_file(written):
            return written
        relative = Path(*written.parts[1:]) if written.is_absolute() else written
        for candidate in dict.fromkeys((relative, Path(relative.name), Path(_HASH_PREFIX.sub("", relative.name)))):
            for place in self.places:
                if is_file(place / candidate):
                    return place / candidate
        return self.below().get(relative.name, self.places[0] / relative)

    def below(self) -> dict[str, Path]:
        """Return every picture in and below the folders, by its name."""
        if self._below is None:
            self._below = {path.name: path for place in reversed(self.places) for path in images_below(place)}
        return self._below


def is_file(path: Path) -> bool:
    """Return whether there is such a file; False for a name that no disk can hold, where pathlib raises."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder, likewise."""
    return os.path.isdir(path)  # noqa: PTH112


def images_below(folder: Path) -> list[Path]:
    """Return the pictures in a folder and the folders in it, sorted."""
    # Not rglob: it raises where a folder goes while it looks, as they do below "/".
    names = (Path(place, name) for place, _, files in os.walk(folder) for name in files)
    return sorted(path for path in names if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def size_of(path: Path, width: Any, height: Any) -> tuple[int, int]:
    """Return the size as annotated where it is one, else the picture's own.

    Raises:
        ImageError: neither is there.
    """
    w, h = number(width), number(height)
    if w is not None and h is not None and 1 <= w <= LARGEST_SIDE and 1 <= h <= LARGEST_SIDE:
        return int(w), int(h)
    return pictures.read_size(path)


def number(value: Any) -> float | None:
    """Return a finite number, also of a text, or None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def around(points: Iterable[tuple[float, float]]) -> tuple[float, float, float, float]:
    """Return the xyxy box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def turned(
    x: float, y: float, width: float, height: float, degrees: float, *, about: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Return the xyxy box around a rectangle that is turned clockwise about a point."""
    if not degrees:
        return x, y, x + width, y + height
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    moved = [(px - about[0], py - about[1]) for px, py in corners]
    return around((about[0] + px * cos - py * sin, about[1] + px * sin + py * cos) for px, py in moved)


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of each line that has any.

    Raises:
        DataError: not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text ({error})") from error
    for line_number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield line_number, line.strip()
