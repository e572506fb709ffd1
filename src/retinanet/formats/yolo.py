"""The YOLO format: a data.yaml that names splits and classes, and a .txt of labels for each picture.

A label is a line `class x y width height`: the class id from 0, the centre and the sides as shares of the picture's
width and height. A picture without a label file, or with an empty one, has no objects. Rows of polygons (segmentation)
and of four corners (oriented boxes) are reduced to the box around them, and a note says how many.

Also read: Darknet's obj.data with obj.names and lists of pictures (CVAT's "YOLO 1.1"), and a folder of classes.txt,
images/ and labels/ (Label Studio's "YOLO").
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from retinanet import images as pictures
from retinanet.errors import did_you_mean
from retinanet.formats.common import (
    ALLOW,
    IMAGE_SUFFIXES,
    LARGEST_SIDE,
    Fence,
    ImageEntry,
    Labelled,
    Reading,
    Wanted,
    around,
    images_below,
    is_file,
    is_folder,
    lines_of,
    number,
)
from retinanet.formats.records import SKIP_OBJECT, SKIP_PICTURE, DataError, DetectionData, clip_box
from retinanet.parse import ParseError, parse_yaml, shorten

SPLITS: Final = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Every split, and the keys or folders that stand for it."""
YAML_NAMES: Final = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_COLUMNS_OF_A_BOX: Final = 5
_NOT_LABELS: Final = frozenset(
    ("classes.txt", "readme.txt", "obj.names", "train.txt", "val.txt", "valid.txt", "test.txt")
)


def read_yolo(
    source: Path,
    wanted: Wanted,
    *,
    images: Path | None = None,
    split: str | None = None,
    allow_outside: bool = False,
) -> DetectionData:
    """Read a YOLO data set: see `formats.read`. Category ids are YOLO's own plus 1, as COCO's begin at 1.

    Args:
        source: data.yaml, obj.data, a list of pictures (.txt), or a folder with images/ and labels/.
        wanted: its classes.
        images: folder of the pictures, in place of the one that the file names.
        split: train, val or test, of a file that has several.
    """
    reading = Reading(source, wanted, images, allow_outside)
    if source.suffix.lower() in {".yaml", ".yml"}:
        content = _parse(source)
        names = _names(content["names"], content.get("nc"), source)
        paths = _pictures(content, split or "train", reading) if images is None else images_below(images)
    elif source.suffix.lower() == ".data":
        content = dict(_darknet(source))
        names = dict(enumerate(_class_file(_beside(reading, content.get("names", "obj.names")))))
        paths = _pictures(content, split or "train", reading) if images is None else images_below(images)
    else:
        root = source if source.is_dir() else source.parent
        names = _names_near(root, reading)
        paths = images_below(images or root) if source.is_dir() else _list(source, reading.fence)
    labels: set[Path] = set()
    reduced, without = 0, 0
    for path in paths:
        file = label_path(path)
        labels.add(file)
        try:
            picture = ImageEntry(path, *pictures.read_size(path))
        except pictures.ImageError as error:
            reading.fault(path, "", str(error).removeprefix(f"{path}: "), SKIP_PICTURE)
            continue
        reading.pictures.append(picture)
        if is_file(file):
            reduced += _labels(file, picture, names, reading)
        else:
            without += 1
    if paths and without == len(paths):
        raise DataError(
            f"{source}: none of its {without} pictures has a label file; the first was expected at "
            f"{label_path(paths[0])}"
        )
    if without:
        reading.notes.append(f"{without:,} of {len(paths):,} pictures have no label file: no objects on them")
    if reduced:
        reading.notes.append(f"{reduced:,} polygons or oriented boxes were reduced to the boxes around them")
    if source.is_dir() or source.suffix.lower() in {".yaml", ".yml"}:
        _without_picture(labels, reading)
    ids: dict[str, int] = {}
    for label, name in names.items():
        ids.setdefault(wanted.rename.get(name, name), label + 1)
    return reading.data(list(names.values()), ids)


def splits_of(source: Path) -> list[str]:
    """Return which of train, val and test a data.yaml or obj.data has."""
    content = dict(_darknet(source)) if source.suffix.lower() == ".data" else _parse(source)
    return [split for split in SPLITS if _entry(content, split) is not None]


def label_path(picture: Path) -> Path:
    """Return where the labels of a picture lie: the last folder `images` of its path becomes `labels`, else beside."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts).with_suffix(".txt")
    return picture.with_suffix(".txt")


def _parse(source: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(source.read_text(encoding="utf-8-sig"))
    except ParseError as error:
        raise DataError(error.at(source)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not YAML ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
        raise DataError(f"{source}: expected YOLO's data.yaml with `names` and `train`, found no list or map `names`")
    return content


def _names(names: Any, count: Any, source: Path) -> dict[int, str]:
    """Return the name of each class id; `names` is a list, or a map from id to name."""
    pairs = list(enumerate(names)) if isinstance(names, list) else list(names.items())
    found: dict[int, str] = {}
    for key, name in pairs:
        class_id = number(key)
        if class_id is None or not 0 <= class_id <= LARGEST_SIDE or not class_id.is_integer():
            raise DataError(f"{source}: expected class ids from 0 in `names`, found {shorten(key)}")
        if str(name) in found.values():
            raise DataError(f"{source}: expected every class name once in `names`, found {str(name)!r} again")
        found[int(class_id)] = str(name)
    if isinstance(count, int) and count != len(found):
        raise DataError(f"{source}: `nc` says {count} classes, `names` holds {len(found)}")
    return dict(sorted(found.items()))


def _names_near(root: Path, reading: Reading) -> dict[int, str]:
    """Return the class names of a data set that has no data.yaml: classes.txt, obj.names, or a data.yaml above."""
    for folder in (root, *root.absolute().parents[:2]):
        for name in ("classes.txt", "obj.names", "labels.txt"):
            if (folder / name).is_file():
                return dict(enumerate(_class_file(folder / name)))
        for name in YAML_NAMES:
            if (folder / name).is_file():
                content = _parse(folder / name)
                return _names(content["names"], content.get("nc"), folder / name)
    raise DataError(
        f"{reading.source}: expected the class names in a data.yaml or classes.txt there or above, found none of them"
    )


def _class_file(path: Path) -> list[str]:
    if not is_file(path):
        raise DataError(f"{path}: expected the class names there, found no such file")
    names = [name for _, name in lines_of(path)]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(f"{path}: expected every class name once, found {name!r} again")
    return names


def _darknet(source: Path) -> Iterable[tuple[str, str]]:
    for line, text in lines_of(source):
        key, equals, value = text.partition("=")
        if not equals:
            raise DataError(f"{source}, line {line}: expected `key = value`, found {text!r}")
        yield key.strip(), value.strip()


def _beside(reading: Reading, name: str) -> Path:
    """Return a file that obj.data names: its path begins with data/, wherever it lies."""
    source = reading.source
    for candidate in (
        source.parent / name,
        source.parent / _without(name, "data/"),
        source.parent / Path(name).name,
    ):
        if is_file(candidate) and reading.fence.holds(candidate):
            return candidate
    return source.parent / Path(name).name


def _entry(content: dict[str, Any], split: str) -> Any:
    return next((content[key] for key in SPLITS[split] if content.get(key) not in (None, "", [])), None)


def _pictures(content: dict[str, Any], split: str, reading: Reading) -> list[Path]:
    """Return the pictures of a split: one entry or a list of them, each a folder, or a .txt with a picture a line."""
    entry, source = _entry(content, split), reading.source
    if entry is None:
        have = ", ".join(name for name in SPLITS if _entry(content, name) is not None)
        raise DataError(f"{source}: expected the split {split!r}, found {have or 'none'}")
    root = Path(str(content.get("path") or "."))
    roots = [root if root.is_absolute() else source.parent / root, source.parent]
    found: list[Path] = []
    for one in entry if isinstance(entry, list) else [entry]:
        text = str(one)
        # Roboflow writes ../train/images and CVAT data/train.txt in files that lie one folder higher than they say
        trimmed = _without(_without(text, "../"), "data/")
        places = [Path(text)] if Path(text).is_absolute() else [r / t for t in (text, trimmed) for r in roots]
        place = next((p for p in places if is_folder(p) or is_file(p)), None)
        if place is None:
            parent = next(p for p in places[0].absolute().parents if is_folder(p))
            near = did_you_mean(places[0].name, [p.name for p in parent.iterdir()])
            raise DataError(f"{source}: `{split}` leads to {places[0]}, which is not there{near}")
        if (what := reading.fence.fault(place)) is not None:
            raise DataError(f"{source}: `{split}`: {what}. {ALLOW}")
        found += images_below(place) if place.is_dir() else _list(place, reading.fence)
    return found


def _without(text: str, folder: str) -> str:
    """Return a path without the folder that it begins with; what is left stays relative: data//x is x, not /x."""
    return text.removeprefix(folder).lstrip("/") if text.startswith(folder) else text


def _list(path: Path, fence: Fence) -> list[Path]:
    """Return the pictures that a list names: from its own folder, or with a data/ before that is not there."""
    found = []
    for line, text in lines_of(path):
        name = _without(text, "./")
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{path}, line {line}: expected the path of a picture, found {text!r}")
        candidates = [path.parent / name, path.parent / _without(name, "data/"), Path(name)]
        picture = next((c for c in candidates if is_file(c)), candidates[0])
        if (what := fence.fault(picture)) is not None:
            raise DataError(f"{path}, line {line}: {what}. {ALLOW}")
        found.append(picture)
    return found


def _labels(file: Path, picture: ImageEntry, names: dict[int, str], reading: Reading) -> int:
    """Take the objects of a label file, and return how many of them were more than a box."""
    reduced = 0
    try:
        rows = list(lines_of(file))
    except DataError as error:
        reading.fault(file, "", str(error).removeprefix(f"{file}: "), SKIP_PICTURE)
        reading.pictures.remove(picture)
        return 0
    for line, text in rows:
        found = _row(text.split(), line, names, picture, reading.wanted)
        if isinstance(found, Labelled):
            picture.objects.append(found)
            reduced += len(text.split()) > _COLUMNS_OF_A_BOX
        elif found is not None:
            reading.fault(file, f"line {line}", found, SKIP_OBJECT)
    return reduced


def _row(
    words: Sequence[str], line: int, names: dict[int, str], picture: ImageEntry, wanted: Wanted
) -> Labelled | str | None:
    """Return an object, what is wrong with its line, or None if it is not wanted."""
    try:
        label, *values = (float(word) for word in words)
    except ValueError:
        return f"expected numbers, found {' '.join(words)!r}"
    if len(values) != _COLUMNS_OF_A_BOX - 1 and (len(values) < 6 or len(values) % 2):
        return f"expected `class x y width height` or the corners of a polygon, found {len(words)} columns"
    if not all(map(math.isfinite, (label, *values))):
        return f"expected finite numbers, found {' '.join(words)!r}"
    if label != int(label) or int(label) not in names:
        known = f"{min(names)} to {max(names)}" if names else "which is empty"
        return f"expected a class id of the class list ({known}), found {words[0]!r}"
    if (name := wanted.name(names[int(label)])) is None:
        return None
    if fault := wanted.fault(name):
        return fault
    if max(abs(value) for value in values) > 2:
        return f"expected shares of the picture's sides, 0 to 1, found {' '.join(words[1:])}: are they pixels?"
    if len(values) == _COLUMNS_OF_A_BOX - 1:
        x, y, w, h = values
        shares = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    else:
        shares = around(zip(values[::2], values[1::2], strict=True))
    W, H = picture.width, picture.height
    box = clip_box((shares[0] * W, shares[1] * H, shares[2] * W, shares[3] * H), W, H)
    return box if isinstance(box, str) else Labelled(line, name, box)


def _without_picture(labels: set[Path], reading: Reading) -> None:
    """Note the label files, beside those that belong to pictures, that belong to none."""
    known = {os.path.abspath(path) for path in labels}  # noqa: PTH100 - resolve() would follow links
    for folder in sorted({path.parent for path in labels}):
        for file in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
            if file.name.lower() not in _NOT_LABELS and os.path.abspath(file) not in known:  # noqa: PTH100
                what = f"labels without a picture: found no {file.stem} with the suffix of a picture"
                reading.fault(file, "", what, "Add the picture or remove the file, or give --skip-bad to go on")
