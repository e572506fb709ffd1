"""Find the classes and images of a YOLO dataset: data.yaml, Darknet's obj.data, image lists and classes.txt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.errors import did_you_mean
from retinanet.files import is_file, is_folder, read_text
from retinanet.formats.annotation_format import SPLIT_NAMES
from retinanet.formats.image_files import OUTSIDE_ADVICE, images_below, outside_fault
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
    """Return the splits (train, val, test) in a data.yaml or obj.data; none for any other file."""
    if file.suffix.lower() not in {*YAML_SUFFIXES, DARKNET_SUFFIX}:
        return []
    content = dict(_darknet(file)) if file.suffix.lower() == DARKNET_SUFFIX else _parse_yaml_file(file)
    return [split for split in SPLIT_NAMES if _entry(content, split) is not None]


def names_and_images(builder: DatasetBuilder) -> tuple[dict[int, str], list[Path]]:
    """Return the name of each class id and the image paths of the builder's file or folder."""
    source, images, split = builder.source, builder.options.images, builder.options.split or "train"
    if source.suffix.lower() in YAML_SUFFIXES:
        content = _parse_yaml_file(source)
        names = _class_names(content["names"], content.get("nc"), source)
        return names, _split_images(content, split, builder) if images is None else images_below(images)
    if source.suffix.lower() == DARKNET_SUFFIX:
        content = dict(_darknet(source))
        names = dict(enumerate(_read_class_file(_darknet_file(builder, content.get("names", "obj.names")))))
        return names, _split_images(content, split, builder) if images is None else images_below(images)
    root = source if source.is_dir() else source.parent
    names = _find_class_names(root, source)
    return names, images_below(images or root) if source.is_dir() else _listed_images(source, builder)


def _parse_yaml_file(source: Path) -> dict[str, Any]:
    """Return the content of a data.yaml. Raises `DataError`."""
    try:
        content = parse_yaml(read_text(source))
    except ParseError as error:
        raise DataError(error.at(source)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not YAML ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
        raise DataError(f"{source}: expected YOLO's data.yaml with `names` and `train`, found no list or map `names`")
    return content


def _class_names(names: Any, count: Any, source: Path) -> dict[int, str]:
    """Return the name of each class id. `names` is a list, or a map from id to name; `count` is the value of `nc`."""
    pairs = list(enumerate(names)) if isinstance(names, list) else list(names.items())
    name_of: dict[int, str] = {}
    for key, name in pairs:
        class_id = finite_number(key)
        if class_id is None or not 0 <= class_id <= LARGEST_SIDE or not class_id.is_integer():
            raise DataError(f"{source}: expected class ids from 0 in `names`, found {shorten(key)}")
        if str(name) in name_of.values():
            raise DataError(f"{source}: expected every class name once in `names`, found {str(name)!r} again")
        name_of[int(class_id)] = str(name)
    if isinstance(count, int) and count != len(name_of):
        raise DataError(f"{source}: expected {count} names (`nc`) in `names`, found {len(name_of)}")
    return dict(sorted(name_of.items()))


def _find_class_names(root: Path, source: Path) -> dict[int, str]:
    """Return the class names of a folder or image list, from classes.txt, obj.names or a data.yaml above it."""
    for folder in (root, *root.absolute().parents[:2]):
        for name in ("classes.txt", "obj.names", "labels.txt"):
            if (folder / name).is_file():
                return dict(enumerate(_read_class_file(folder / name)))
        for name in YAML_NAMES:
            if (folder / name).is_file():
                content = _parse_yaml_file(folder / name)
                return _class_names(content["names"], content.get("nc"), folder / name)
    raise DataError(
        f"{source}: expected class names in a data.yaml or classes.txt in {root} or above it, found no such file"
    )


def _read_class_file(path: Path) -> list[str]:
    """Return the class names in a file with one name per line."""
    if not is_file(path):
        raise DataError(f"{path}: expected a file with class names, found no such file")
    names = [name for _, name in read_lines(path)]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise DataError(f"{path}: expected every class name once, found {name!r} again")
    return names


def _darknet(source: Path) -> Iterable[tuple[str, str]]:
    """Yield the keys and values of an obj.data. Raises `DataError`."""
    for line, text in read_lines(source):
        key, equals, value = text.partition("=")
        if not equals:
            raise DataError(f"{source}, line {line}: expected `key = value`, found {text!r}")
        yield key.strip(), value.strip()


def _darknet_file(builder: DatasetBuilder, name: str) -> Path:
    """Return a file that obj.data names. The written path often starts with a data/ that does not exist."""
    source = builder.source
    for candidate in (
        source.parent / name,
        source.parent / _remove_folder(name, "data/"),
        source.parent / Path(name).name,
    ):
        if is_file(candidate) and builder.allowed.contains(candidate):
            return candidate
    return source.parent / Path(name).name


def _entry(content: dict[str, Any], split: str) -> Any:
    """Return the value of a split's key, or None if it is missing or empty."""
    return next((content[key] for key in SPLIT_NAMES[split] if content.get(key) not in (None, "", [])), None)


def _split_images(content: dict[str, Any], split: str, builder: DatasetBuilder) -> list[Path]:
    """Return the images of a split. Its value is a folder, a .txt file that lists images, or a list of both."""
    entry, source = _entry(content, split), builder.source
    if entry is None:
        present = ", ".join(name for name in SPLIT_NAMES if _entry(content, name) is not None)
        raise DataError(f"{source}: expected the split {split!r}, found {present or 'none'}")
    root = Path(str(content.get("path") or "."))
    roots = [root if root.is_absolute() else source.parent / root, source.parent]
    image_paths: list[Path] = []
    for item in entry if isinstance(entry, list) else [entry]:
        text = str(item)
        # Roboflow writes ../train/images and CVAT data/train.txt, although the paths start beside the file.
        trimmed = _remove_folder(_remove_folder(text, "../"), "data/")
        places = [Path(text)] if Path(text).is_absolute() else [r / t for t in (text, trimmed) for r in roots]
        place = next((p for p in places if is_folder(p) or is_file(p)), None)
        if place is None:
            parent = next(p for p in places[0].absolute().parents if is_folder(p))
            near = did_you_mean(places[0].name, [p.name for p in parent.iterdir()])
            raise DataError(f"{source}: `{split}` names {places[0]}, which does not exist{near}")
        if (what := outside_fault(builder.allowed, place)) is not None:
            raise DataError(f"{source}: `{split}`: {what}. {OUTSIDE_ADVICE}")
        image_paths += images_below(place) if place.is_dir() else _listed_images(place, builder)
    return image_paths


def _remove_folder(text: str, folder: str) -> str:
    """Return a path without its leading folder. The result stays relative: `data//x` becomes `x`, not `/x`."""
    return text.removeprefix(folder).lstrip("/") if text.startswith(folder) else text


def _listed_images(path: Path, builder: DatasetBuilder) -> list[Path]:
    """Return the images that a file lists, relative to its folder. A leading data/ that does not exist is dropped."""
    image_paths = []
    for line, text in read_lines(path):
        name = _remove_folder(text, "./")
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{path}, line {line}: expected the path of an image, found {text!r}")
        candidates = [path.parent / name, path.parent / _remove_folder(name, "data/"), Path(name)]
        image = next((c for c in candidates if is_file(c)), candidates[0])
        if (what := outside_fault(builder.allowed, image)) is not None:
            raise DataError(f"{path}, line {line}: {what}. {OUTSIDE_ADVICE}")
        image_paths.append(image)
    return image_paths
