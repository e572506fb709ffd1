"""Classes and images of a YOLO dataset, from data.yaml, Darknet's obj.data, lists of images or classes.txt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.errors import did_you_mean
from retinanet.files import is_file, is_folder
from retinanet.formats.annotation_format import SPLIT_NAMES
from retinanet.formats.image_files import ALLOW, images_below, outside_fault
from retinanet.formats.records import DataError
from retinanet.formats.text import LARGEST_SIDE, finite_number, read_lines
from retinanet.images import IMAGE_SUFFIXES
from retinanet.parse import ParseError, parse_yaml, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from retinanet.formats.builder import DatasetBuilder

YAML_NAMES: Final = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
YAML_SUFFIXES: Final = frozenset((".yaml", ".yml"))
DARKNET_SUFFIX: Final = ".data"


def splits_in_file(file: Path) -> list[str]:
    """Return which of train, val and test a data.yaml or obj.data has; none of another file."""
    if file.suffix.lower() not in {*YAML_SUFFIXES, DARKNET_SUFFIX}:
        return []
    content = dict(_darknet(file)) if file.suffix.lower() == DARKNET_SUFFIX else _parse(file)
    return [split for split in SPLIT_NAMES if _entry(content, split) is not None]


def names_and_images(builder: DatasetBuilder) -> tuple[dict[int, str], list[Path]]:
    """Return the name of each class id, and the images, of the file or folder that is read."""
    source, images, split = builder.source, builder.options.images, builder.options.split or "train"
    if source.suffix.lower() in YAML_SUFFIXES:
        content = _parse(source)
        names = _names(content["names"], content.get("nc"), source)
        return names, _images(content, split, builder) if images is None else images_below(images)
    if source.suffix.lower() == DARKNET_SUFFIX:
        content = dict(_darknet(source))
        names = dict(enumerate(_class_file(_beside(builder, content.get("names", "obj.names")))))
        return names, _images(content, split, builder) if images is None else images_below(images)
    root = source if source.is_dir() else source.parent
    names = _names_near(root, source)
    return names, images_below(images or root) if source.is_dir() else _list(source, builder)


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
        class_id = finite_number(key)
        if class_id is None or not 0 <= class_id <= LARGEST_SIDE or not class_id.is_integer():
            raise DataError(f"{source}: expected class ids from 0 in `names`, found {shorten(key)}")
        if str(name) in found.values():
            raise DataError(f"{source}: expected every class name once in `names`, found {str(name)!r} again")
        found[int(class_id)] = str(name)
    if isinstance(count, int) and count != len(found):
        raise DataError(f"{source}: `nc` says {count} classes, `names` holds {len(found)}")
    return dict(sorted(found.items()))


def _names_near(root: Path, source: Path) -> dict[int, str]:
    """Return the class names of a dataset that has no data.yaml: classes.txt, obj.names, or a data.yaml above."""
    for folder in (root, *root.absolute().parents[:2]):
        for name in ("classes.txt", "obj.names", "labels.txt"):
            if (folder / name).is_file():
                return dict(enumerate(_class_file(folder / name)))
        for name in YAML_NAMES:
            if (folder / name).is_file():
                content = _parse(folder / name)
                return _names(content["names"], content.get("nc"), folder / name)
    raise DataError(
        f"{source}: expected the class names in a data.yaml or classes.txt there or above, found none of them"
    )


def _class_file(path: Path) -> list[str]:
    if not is_file(path):
        raise DataError(f"{path}: expected the class names there, found no such file")
    names = [name for _, name in read_lines(path)]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(f"{path}: expected every class name once, found {name!r} again")
    return names


def _darknet(source: Path) -> Iterable[tuple[str, str]]:
    for line, text in read_lines(source):
        key, equals, value = text.partition("=")
        if not equals:
            raise DataError(f"{source}, line {line}: expected `key = value`, found {text!r}")
        yield key.strip(), value.strip()


def _beside(builder: DatasetBuilder, name: str) -> Path:
    """Return a file that obj.data names: its path begins with data/, wherever it lies."""
    source = builder.source
    for candidate in (
        source.parent / name,
        source.parent / _without(name, "data/"),
        source.parent / Path(name).name,
    ):
        if is_file(candidate) and builder.allowed.contains(candidate):
            return candidate
    return source.parent / Path(name).name


def _entry(content: dict[str, Any], split: str) -> Any:
    return next((content[key] for key in SPLIT_NAMES[split] if content.get(key) not in (None, "", [])), None)


def _images(content: dict[str, Any], split: str, builder: DatasetBuilder) -> list[Path]:
    """Return the images of a split: one entry or a list of entries, each a folder, or a .txt with an image per line."""
    entry, source = _entry(content, split), builder.source
    if entry is None:
        have = ", ".join(name for name in SPLIT_NAMES if _entry(content, name) is not None)
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
        if (what := outside_fault(builder.allowed, place)) is not None:
            raise DataError(f"{source}: `{split}`: {what}. {ALLOW}")
        found += images_below(place) if place.is_dir() else _list(place, builder)
    return found


def _without(text: str, folder: str) -> str:
    """Return a path without the folder that it begins with; what is left stays relative: data//x is x, not /x."""
    return text.removeprefix(folder).lstrip("/") if text.startswith(folder) else text


def _list(path: Path, builder: DatasetBuilder) -> list[Path]:
    """Return the images that a list names: from its own folder, or with a data/ before that is not there."""
    found = []
    for line, text in read_lines(path):
        name = _without(text, "./")
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{path}, line {line}: expected the path of an image, found {text!r}")
        candidates = [path.parent / name, path.parent / _without(name, "data/"), Path(name)]
        image = next((c for c in candidates if is_file(c)), candidates[0])
        if (what := outside_fault(builder.allowed, image)) is not None:
            raise DataError(f"{path}, line {line}: {what}. {ALLOW}")
        found.append(image)
    return found
