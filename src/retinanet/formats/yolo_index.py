"""Find the classes and images of a YOLO dataset: data.yaml, Darknet's obj.data, image lists and classes.txt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.errors import did_you_mean
from retinanet.files import is_file, is_folder
from retinanet.formats.annotation_format import SPLIT_NAMES
from retinanet.formats.folder_walk import walk
from retinanet.formats.image_files import OUTSIDE_ADVICE, ImageFinder, outside_fault, readings
from retinanet.formats.records import DataError
from retinanet.formats.text import LARGEST_SIDE, integer, read_lines, read_text
from retinanet.formats.yolo_labels import label_folders
from retinanet.images import IMAGE_SUFFIXES
from retinanet.parse import ParseError, parse_yaml, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


@dataclass(frozen=True, slots=True)
class YoloIndex:
    """What a YOLO dataset declares besides its labels.

    Args:
        names: name of each class id.
        images: path of each image.
        folders: folders whose images were all taken.
        label_folders: folders of the labels, if the images lie elsewhere (`--images`); None if labels are found by the
            place of their image only.
        key_points: number of key points and of numbers per key point in a pose dataset; None in any other dataset.
    """

    names: dict[int, str]
    images: list[Path]
    folders: list[Path]
    label_folders: list[Path] | None
    key_points: tuple[int, int] | None = None


def read_index(builder: DatasetBuilder) -> YoloIndex:
    """Return the classes, the images and the key points of the builder's file or folder."""
    source, images, split = builder.source, builder.options.images, builder.options.split or "train"
    found = _Images(builder)
    key_points = None
    root = source if source.is_dir() else source.parent
    if source.suffix.lower() in {*YAML_SUFFIXES, DARKNET_SUFFIX}:
        if source.suffix.lower() in YAML_SUFFIXES:
            content = _parse_yaml_file(source)
            names = _class_names(content["names"], content.get("nc"), source)
            key_points = _key_points(content, source)
        else:
            content = dict(_darknet(source))
            names = dict(enumerate(_read_class_file(_darknet_file(builder, content.get("names", "obj.names")))))
        found.add_split(content, split)
    else:
        names, key_points = _find_class_names(root, source)
        if source.is_dir():
            found.add_folder(root if images is None else _split_below(images, builder.options.split))
        else:
            found.add_list(source)
    likely = [place for place in (_split_below(root / "labels", builder.options.split), root) if place.is_dir()]
    places = found.label_folders or likely[:1]
    return YoloIndex(names, found.paths, found.folders, None if images is None else places, key_points)


def _split_below(folder: Path, split: str | None) -> Path:
    """Return the subfolder of a requested split, such as val or valid, or the folder itself if it has none."""
    return next((folder / name for name in SPLIT_NAMES.get(split or "", ()) if (folder / name).is_dir()), folder)


def _key_points(content: dict[str, Any], source: Path) -> tuple[int, int] | None:
    """Return `kpt_shape` of a data.yaml: the number of key points, and 2 or 3 numbers per key point."""
    if (shape := content.get("kpt_shape")) is None:
        return None
    numbers = [integer(value) for value in shape] if isinstance(shape, list) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[0] < 1 or numbers[1] not in (2, 3):
        raise DataError(
            f"{source}: expected the number of key points and 2 or 3 in `kpt_shape`, found {shorten(shape)}"
        )
    return numbers[0], numbers[1]


def _parse_yaml_file(source: Path) -> dict[str, Any]:
    """Return the content of a data.yaml. Raises `DataError`."""
    try:
        content = parse_yaml(read_text(source), words=("names",))
    except ParseError as error:
        raise DataError(error.at(source)) from error
    if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
        raise DataError(f"{source}: expected YOLO's data.yaml with `names` and `train`, found no list or map `names`")
    return content


def _class_names(names: Any, count: Any, source: Path) -> dict[int, str]:
    """Return the name of each class id. `names` is a list, or a map from id to name; `count` is the value of `nc`."""
    pairs = list(enumerate(names)) if isinstance(names, list) else list(names.items())
    name_of: dict[int, str] = {}
    for key, name in pairs:
        class_id = integer(key)
        if class_id is None or not 0 <= class_id <= LARGEST_SIDE:
            raise DataError(f"{source}: expected class ids from 0 in `names`, found {shorten(key)}")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{source}: expected the name of class {class_id} in `names`, found {shorten(name)}")
        if class_id in name_of:
            raise DataError(f"{source}: expected every class id once in `names`, found {class_id} again")
        if name in name_of.values():
            raise DataError(f"{source}: expected every class name once in `names`, found {name!r} again")
        name_of[class_id] = name
    if (expected := integer(count)) is not None and expected != len(name_of):
        raise DataError(f"{source}: expected {expected} names (`nc`) in `names`, found {len(name_of)}")
    return dict(sorted(name_of.items()))


def _find_class_names(root: Path, source: Path) -> tuple[dict[int, str], tuple[int, int] | None]:
    """Return class names and key points of a folder or image list, from a classes.txt or data.yaml above it."""
    for folder in (root, root / "labels", *root.absolute().parents[:2]):
        for name in ("classes.txt", "obj.names", "labels.txt"):
            if (folder / name).is_file():
                return dict(enumerate(_read_class_file(folder / name))), None
        for name in YAML_NAMES:
            if (folder / name).is_file():
                content = _parse_yaml_file(folder / name)
                names = _class_names(content["names"], content.get("nc"), folder / name)
                return names, _key_points(content, folder / name)
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


class _Images:
    """Collects the images of a split, and the folders with their labels."""

    def __init__(self, builder: DatasetBuilder) -> None:
        self.builder = builder
        self.paths: list[Path] = []
        self.folders: list[Path] = []
        self.label_folders: list[Path] = []

    def add_split(self, content: dict[str, Any], split: str) -> None:
        """Add the images of a split. Its value is a folder, a .txt file that lists images, or a list of both."""
        entry, source, images = _entry(content, split), self.builder.source, self.builder.options.images
        if entry is None:
            present = ", ".join(name for name in SPLIT_NAMES if _entry(content, name) is not None)
            raise DataError(f"{source}: expected the split {split!r}, found {present or 'none'}")
        places = {str(item): self._place(str(item), content) for item in _items(entry)}
        self._check_other_splits(content, split, places)
        for text, (place, _) in places.items():
            if images is not None and (place is None or place.is_dir()):
                self.label_folders += [] if place is None else label_folders(place)
                self.add_folder(_longest_end(text, [images])[0] or images)
            elif place is None:
                raise self._missing(split, text, content)
            elif (what := outside_fault(self.builder.allowed, place)) is not None:
                raise DataError(f"{source}: `{split}`: {what}. {OUTSIDE_ADVICE}")
            elif place.is_dir():
                self.add_folder(place)
            else:
                self.add_list(place)

    def _place(self, text: str, content: dict[str, Any]) -> tuple[Path | None, bool]:
        """Return the folder or list of a split, or None, and whether the whole written path leads to it.

        Roboflow writes ../train/images and CVAT data/train.txt, although the paths start beside the file. Notebooks
        and other machines write absolute paths: the longest end that exists is taken.
        """
        source = self.builder.source
        roots = [source.parent]
        for written in reversed(readings(str(content.get("path") or "."))):
            root = Path(written) if Path(written).is_absolute() else source.parent / written
            if is_folder(root):
                roots.insert(0, root)
        return _longest_end(text, roots)

    def _check_other_splits(
        self, content: dict[str, Any], split: str, places: dict[str, tuple[Path | None, bool]]
    ) -> None:
        """Raise `DataError` if a place was found by the end of its path only, and is that of another split as well."""
        for other in SPLIT_NAMES:
            for item in _items(_entry(content, other)) if other != split else ():
                place, is_whole = self._place(str(item), content)
                for text, (own_place, is_own_whole) in places.items():
                    if text != str(item) and own_place == place is not None and not (is_whole and is_own_whole):
                        raise DataError(
                            f"{self.builder.source}: expected one folder for `{split}: {text}` and another one for "
                            f"`{other}: {item}`, found only {place}. Correct the paths"
                        )

    def _missing(self, split: str, text: str, content: dict[str, Any]) -> DataError:
        root = Path(str(content.get("path") or "."))
        place = self.builder.source.parent / root / text.replace("\\", "/")
        parent = next(p for p in place.absolute().parents if is_folder(p))
        near = did_you_mean(place.name, [p.name for p in parent.iterdir()])
        return DataError(f"{self.builder.source}: `{split}` names {place}, which does not exist{near}")

    def add_folder(self, folder: Path) -> None:
        """Add all images in a folder and its subfolders."""
        found = walk(folder, IMAGE_SUFFIXES)
        self.paths += found.files
        self.folders.append(folder)
        self.builder.note_left_out(found.left_out)

    def add_list(self, path: Path) -> None:
        """Add the images that a file lists, relative to its folder. A leading data/ that does not exist is dropped."""
        images = self.builder.options.images
        folder = path.parent if images is None else images
        finder = ImageFinder([folder])
        for line, text in read_lines(path):
            if not any(Path(reading).suffix.lower() in IMAGE_SUFFIXES for reading in readings(text)):
                raise DataError(f"{path}, line {line}: expected the path of an image, found {text!r}")
            where, name = f"line {line}", _remove_folder(text.replace("\\", "/"), "./")
            if not is_file(folder / name) and is_file(folder / _remove_folder(name, "data/")):
                name = _remove_folder(name, "data/")
            what = outside_fault(self.builder.allowed, folder / name)
            if what is not None and is_file(folder / name):
                raise DataError(f"{path}, {where}: {what}. {OUTSIDE_ADVICE}")
            if (image := self.builder.find_image(finder, name, file=path, where=where)) is not None:
                self.paths.append(image)


def _items(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [] if entry is None else [entry]


def _longest_end(text: str, roots: Sequence[Path]) -> tuple[Path | None, bool]:
    """Return the longest end of a written path that exists in a folder, or None, and whether it is the whole path."""
    for written in readings(text) or [text]:
        if Path(written).is_absolute() and (is_folder(Path(written)) or is_file(Path(written))):
            return Path(written), True
        parts = written.split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:]).lstrip("/")
            for place in (root / end for root in roots):
                if (start == 0 or set(parts[start:]) - {"", ".", ".."}) and (is_folder(place) or is_file(place)):
                    return place, start == 0 or set(parts[:start]) <= {"..", ".", "data", ""}
    return None, False


def _remove_folder(text: str, folder: str) -> str:
    """Return a path without its leading folder. The result stays relative: `data//x` becomes `x`, not `/x`."""
    return text.removeprefix(folder).lstrip("/") if text.startswith(folder) else text
