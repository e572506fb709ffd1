"""Readers of data sets: one `read` that recognises the kind by its path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from retinanet.config import did_you_mean
from retinanet.data.formats import coco, voc
from retinanet.data.records import DataError, DetectionData

KINDS: Final = "a COCO .json, a Pascal VOC folder, or one of its ImageSets .txt files"


def read(
    source: Path | str, *, images: Path | str | None = None, classes: Sequence[str] | None = None
) -> DetectionData:
    """Read a data set's annotations; what is wrong with single objects ends in `faults`, without them.

    The pictures themselves are not opened, unless an annotation does not give their size: see `check.load`.

    Args:
        source: a COCO .json, a Pascal VOC folder, or one of its ImageSets .txt files.
        images: folder of the pictures, where they do not lie beside the annotations.
        classes: the class list to use (the training data's, a model's); by default the data's own.

    Raises:
        DataError: a path or a kind of file that cannot be read at all.
    """
    source = Path(source)
    if images is not None and not Path(images).is_dir():
        raise DataError(f"images: expected a folder, found {_what_is(Path(images))}")
    if not source.exists():
        raise DataError(f"expected {KINDS}, found {_what_is(source)}")
    images = Path(images) if images is not None else None
    suffix = source.suffix.lower()
    if source.is_dir():
        if voc.is_voc(source):
            return voc.read_voc(source, images=images, classes=classes)
        files = sorted(source.glob("*.json"))
        hint = f". Give the file itself: {files[0]}" if files else ""
        raise DataError(f"expected {KINDS}, found the folder {source} without any VOC .xml in it{hint}")
    if suffix == ".json":
        return coco.read_coco(source, images=images, classes=classes)
    if suffix == ".txt":
        return voc.read_voc(source, images=images, classes=classes)
    hint = f". Give the folder it lies in: {source.parent}" if suffix == ".xml" else ""
    raise DataError(f"expected {KINDS}, found {source}{hint}")


def _what_is(path: Path) -> str:
    """Return what a wrong path leads to, with the nearest name that exists."""
    if path.exists():
        return f"the file {path}"
    for folder in path.parents:
        if folder.is_dir():
            missing = path.relative_to(folder).parts[0]
            return f"no {missing!r} in {folder}{did_you_mean(missing, sorted(p.name for p in folder.iterdir()))}"
    return f"nothing at {path}"
