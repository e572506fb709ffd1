"""Readers of data sets: one `read` that recognises the kind by its path and content."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from retinanet.config import DataFormat
from retinanet.errors import did_you_mean
from retinanet.formats import coco, csv, cvat, label_studio, labelme, voc, yolo
from retinanet.formats.common import IMAGE_SUFFIXES, Wanted, images_below, lines_of
from retinanet.formats.records import DataError, DetectionData

KINDS: Final = (
    "a COCO .json, a Pascal VOC folder or one of its ImageSets .txt files, a YOLO data.yaml, a .csv "
    "(path,x1,y1,x2,y2,class), or what Roboflow, Label Studio, CVAT or labelme export"
)
SPLITS: Final = tuple(yolo.SPLITS)
TITLES: Final[dict[DataFormat, str]] = {
    "coco": "COCO JSON",
    "voc": "Pascal VOC",
    "yolo": "YOLO",
    "csv": "CSV",
    "labelme": "labelme",
    "label_studio": "Label Studio JSON",
    "cvat": "CVAT XML",
}


class Recognised(NamedTuple):
    """What a path was recognised as."""

    format: DataFormat
    path: Path
    """The file or folder that the reader takes: within the one that was given, it may be."""
    why: str
    """What it was recognised by, where that is a guess; empty where the path itself says it."""
    others: tuple[str, ...] = ()
    """What else it could be."""
    content: Any = None
    """Of a JSON file, which is parsed to recognise it."""


def read(
    source: Path | str,
    *,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    format: DataFormat | None = None,
    split: str | None = None,
    keep: Sequence[str] = (),
    ignore: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    allow_outside: bool = False,
) -> DetectionData:
    """Read a data set's annotations; what is wrong with single objects ends in `faults`, without them.

    The pictures themselves are not opened, unless an annotation does not give their size: see `check.load`.

    Args:
        source: see `KINDS`; of a file or folder with several splits, `data.yaml#val` names one of them.
        images: folder of the pictures, where they do not lie beside the annotations.
        classes: the class list to use (the training data's, a model's); by default the data's own.
        format: what to read it as; recognised unless given.
        split: train, val or test, of a file or folder that has several; else without effect. A set that lacks val
            gives test, and one that lacks train, too.
        keep: the classes to keep, the others' objects are left out; empty: all.
        ignore: the classes whose objects are left out.
        rename: new names of classes; the other options name classes by their new names.
        allow_outside: follow relative paths that climb (..) anywhere. Otherwise one that ends neither below the
            annotations' folder, nor below the folder above it, nor below `images` is a fault.

    Raises:
        DataError: a path or a kind of file that cannot be read at all.
    """
    if images is not None and not Path(images).is_dir():
        raise DataError(f"images: expected a folder, found {_what_is(Path(images))}")
    source, named = _named_split(Path(source))
    if not source.exists():
        raise DataError(f"expected {KINDS}, found {_what_is(source)}")
    asked = named or split
    folder, notes = _split_folder(source, asked, strict=named is not None)
    found = recognise(folder, format)
    wanted = Wanted(
        only=None if classes is None else tuple(classes), keep=tuple(keep), ignore=tuple(ignore), rename=rename or {}
    )
    chosen, said = _choose_split(found, asked, strict=named is not None)
    data = _read(found, wanted, Path(images) if images is not None else None, chosen, allow_outside=allow_outside)
    if format is None and (found.why or found.others):
        maybe = f"; it could also be {' or '.join(found.others)}" if found.others else ""
        notes.append(f"{folder} was read as {TITLES[found.format]}{found.why}{maybe} (--format overrides)")
    return dataclasses.replace(data, notes=(*notes, *said, *data.notes))


def splits_of(source: Path | str, format: DataFormat | None = None) -> dict[str, Path]:
    """Return the splits of a data set, each with the path that `read` takes for it; one without splits is itself.

    The key of the only split of a data set that is not named train, val or test is empty.
    """
    source, named = _named_split(Path(source))
    if named is not None:
        return {named: source.with_name(f"{source.name}#{named}")}
    if not source.exists():
        raise DataError(f"expected {KINDS}, found {_what_is(source)}")
    if below := _folders_of_splits(source):
        return below
    found = recognise(source, format)
    names: Sequence[str] = ()
    if found.format == "yolo" and found.path.suffix.lower() in {".yaml", ".yml", ".data"}:
        names = yolo.splits_of(found.path)
    elif found.format == "voc" and source.is_dir():
        return _voc_lists(source) or {"": source}
    elif found.format == "coco" and source.is_dir() and len(_coco_files(source)) > 1:
        return {s: f for s in SPLITS if (f := _of_split(_coco_files(source), s)) is not None} or {"": source}
    return {name: found.path.with_name(f"{found.path.name}#{name}") for name in names} or {"": source}


def _voc_lists(source: Path) -> dict[str, Path]:
    """Return the train, val and test lists of a VOC folder, if together they name every picture of it."""
    lists = {name: source / "ImageSets" / "Main" / f"{name}.txt" for name in SPLITS}
    there = {name: path for name, path in lists.items() if path.is_file()}
    named = {Path(text.split()[0]).name for path in there.values() for _, text in lines_of(path)}
    stems = {path.stem for path in (source / "Annotations").glob("*.xml")}
    return there if stems <= named | {Path(name).stem for name in named} else {}


def recognise(source: Path, format: DataFormat | None = None) -> Recognised:
    """Return what a file or folder is.

    Raises:
        DataError: none of `KINDS`, or not the one that was asked for.
    """
    found = list(_folder_kinds(source) if source.is_dir() else _file_kinds(source))
    if format is not None:
        kept = [kind for kind in found if kind.format == format]
        if kept:
            return kept[0]
        if source.is_dir() and format not in {"voc", "labelme", "yolo"}:
            raise DataError(f"{source}: expected {TITLES[format]}, found no such file in the folder")
        return Recognised(format, source, "", (), coco.read_json(source) if source.suffix.lower() == ".json" else None)
    if not found:
        files = sorted(source.glob("*.json")) if source.is_dir() else []
        hint = f". Give the file itself: {files[0]}" if files else ""
        if source.suffix.lower() == ".xml":
            hint = f". Give the folder it lies in: {source.parent}"
        if source.suffix.lower() in {".zip", ".tar", ".gz"}:
            hint = ". Unpack it first"
        what = f"the folder {source} without any of them in it" if source.is_dir() else source
        raise DataError(f"expected {KINDS}, found {what}{hint}")
    first = found[0]
    others = tuple(dict.fromkeys(TITLES[k.format] for k in found[1:] if k.format != first.format))
    return first._replace(others=others)


def _read(
    found: Recognised, wanted: Wanted, images: Path | None, split: str | None, *, allow_outside: bool
) -> DetectionData:
    where: dict[str, Any] = {"images": images, "allow_outside": allow_outside}
    if found.format == "coco":
        return coco.read_coco(found.path, wanted, content=found.content, **where)
    if found.format == "label_studio":
        return label_studio.read_label_studio(found.path, wanted, content=found.content, **where)
    if found.format == "yolo":
        return yolo.read_yolo(found.path, wanted, split=split, **where)
    if found.format == "cvat":
        return cvat.read_cvat(found.path, wanted, split=split, **where)
    if found.format == "voc":
        return voc.read_voc(found.path, wanted, images=images)  # it finds pictures by the last part of their names
    readers = {"csv": csv.read_csv, "labelme": labelme.read_labelme}
    return readers[found.format](found.path, wanted, **where)


def _file_kinds(source: Path) -> Iterator[Recognised]:
    suffix = source.suffix.lower()
    if suffix == ".json":
        content = coco.read_json(source)
        if label_studio.is_label_studio(content):
            yield Recognised("label_studio", source, "", (), content)
        elif labelme.is_labelme(content):
            yield Recognised("labelme", source, "", (), content)
        else:
            yield Recognised("coco", source, "", (), content)
    elif suffix in {".yaml", ".yml", ".data"}:
        yield Recognised("yolo", source, "")
    elif suffix == ".csv":
        yield Recognised("csv", source, "")
    elif suffix == ".xml" and cvat.is_cvat(source):
        yield Recognised("cvat", source, "")
    elif suffix == ".txt":
        listed = next((text for _, text in lines_of(source)), "")
        is_list = Path(listed).suffix.lower() in IMAGE_SUFFIXES and ("/" in listed or "\\" in listed)
        yield Recognised("yolo" if is_list else "voc", source, "")


def _folder_kinds(folder: Path) -> Iterator[Recognised]:
    """Yield what a folder looks like, the surest first."""
    for name in yolo.YAML_NAMES:
        if (folder / name).is_file():
            yield Recognised("yolo", folder / name, f" by its {name}")
    if (folder / "obj.data").is_file():
        yield Recognised("yolo", folder / "obj.data", " by its obj.data")
    if (file := folder / "annotations.xml").is_file() and cvat.is_cvat(file):
        yield Recognised("cvat", file, " by its annotations.xml")
    if (folder / "Annotations").is_dir():
        yield Recognised("voc", folder, "")
    for file in _coco_files(folder):
        yield Recognised("coco", file, f" by its {file.relative_to(folder)}")
    if (folder / "labels").is_dir():
        yield Recognised("yolo", folder, " by its folder labels")
    for file in sorted(folder.glob("*.csv")):
        if not file.name.endswith(csv.CLASS_FILE):
            yield Recognised("csv", file, f" by its {file.name}")
    if next(folder.glob("*.xml"), None) is not None and not (folder / "annotations.xml").is_file():
        yield Recognised("voc", folder, " by the .xml files in it")
    yield from _json_kinds(folder)
    if next(folder.glob("*.txt"), None) is not None and any(
        (folder / n).is_file() for n in ("obj.names", "classes.txt")
    ):
        yield Recognised("yolo", folder, " by the .txt files and the class names in it")


def _json_kinds(folder: Path) -> Iterator[Recognised]:
    """Yield what the first .json file says of a folder."""
    first = next(iter(sorted(folder.glob("*.json"))), None)
    if first is not None and labelme.is_labelme(content := coco.read_json(first)):
        yield Recognised("labelme", folder, " by the .json files in it")
    elif first is not None and label_studio.is_label_studio(content):
        yield Recognised("label_studio", first, f" by its {first.name}", (), content)


def _coco_files(folder: Path) -> list[Path]:
    """Return the COCO files of exports: Roboflow's, Label Studio's result.json, CVAT's annotations/instances_*.json."""
    files = [folder / "_annotations.coco.json", folder / "result.json"]
    files += sorted((folder / "annotations").glob("*.json"))
    return [file for file in files if file.is_file()]


def _named_split(source: Path) -> tuple[Path, str | None]:
    """Return a path and the split after its #: data.yaml#val."""
    stem, sharp, split = source.name.rpartition("#")
    if not sharp or source.exists():
        return source, None
    if split not in SPLITS:
        raise DataError(f"{source}: expected train, val or test after #, found {split!r}{did_you_mean(split, SPLITS)}")
    return source.with_name(stem), split


def _folders_of_splits(source: Path) -> dict[str, Path]:
    """Return the folder of each split, where a folder has nothing but those, as Roboflow exports COCO, VOC and CSV."""
    if not source.is_dir() or any(True for _ in _folder_kinds(source)):
        return {}
    below = {split: source / name for split, names in yolo.SPLITS.items() for name in names if (source / name).is_dir()}
    return {split: folder for split, folder in below.items() if any(True for _ in _folder_kinds(folder))}


def _split_folder(source: Path, asked: str | None, *, strict: bool) -> tuple[Path, list[str]]:
    """Return the folder of the split that was asked for, where there is one for each."""
    below = _folders_of_splits(source)
    if not below:
        return source, []
    split = _fallback(asked or "train", list(below), source, strict=strict)
    others = ", ".join(name for name in below if name != split)
    return below[split], [f"of {source}, the split {split} was read" + (f" (there is also {others})" if others else "")]


def _choose_split(found: Recognised, asked: str | None, *, strict: bool) -> tuple[str | None, list[str]]:
    """Return which split of a file to read, with a note where it is not the one that was asked for."""
    if found.format == "yolo" and found.path.suffix.lower() in {".yaml", ".yml", ".data"}:
        there = yolo.splits_of(found.path)
        if not there:
            return asked, []
        split = _fallback(asked or "train", there, found.path, strict=strict)
        others = ", ".join(name for name in there if name != split)
        if asked is None and others:
            return split, [
                f"of {found.path}, the split {split} was read (there is also {others}; {found.path.name}#val)"
            ]
        return split, [] if split == (asked or split) else [f"{found.path} has no split {asked}: {split} was read"]
    return asked, []


def _fallback(asked: str, there: Sequence[str], source: Path, *, strict: bool) -> str:
    instead = {"val": ("test",), "test": ("val",)}.get(asked, ("val", "test"))
    order: tuple[str, ...] = (asked,) if strict else (asked, *instead)
    for split in order:
        if split in there:
            return split
    raise DataError(f"{source}: expected the split {asked!r}, found {', '.join(there)}")


def _of_split(files: Sequence[Path], split: str) -> Path | None:
    """Return the COCO file of a split: instances_Train.json, instances_val2017.json."""
    names = yolo.SPLITS[split]
    return next((f for f in files if any(f.stem.lower().split("_")[-1].startswith(name) for name in names)), None)


def _what_is(path: Path) -> str:
    """Return what a wrong path leads to, with the nearest name that exists."""
    if path.exists():
        return f"the file {path}"
    for folder in path.parents:
        if folder.is_dir():
            missing = path.relative_to(folder).parts[0]
            return f"no {missing!r} in {folder}{did_you_mean(missing, sorted(p.name for p in folder.iterdir()))}"
    return f"nothing at {path}"


__all__ = ["KINDS", "SPLITS", "TITLES", "Found", "images_below", "read", "recognise", "splits_of"]
