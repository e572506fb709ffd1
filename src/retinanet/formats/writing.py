"""Writing a dataset in another format, so that `formats.read` returns what was written.

What a format cannot store is listed. Every file is written under a temporary name and renamed.
Shape suffixes: G objects of an image. Boxes are xyxy in original pixels.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retinanet.errors import UserError
from retinanet.files import atomic_path
from retinanet.formats.output import WriteTarget
from retinanet.formats.registry import all_formats, find_writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from retinanet.config import ImageFiles
    from retinanet.formats.annotation_format import Detail, FormatWriter
    from retinanet.formats.records import DetectionData, Record


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written.

    Args:
        files: the annotation file or folder of each split.
        lost: what the format cannot store, a sentence each.
    """

    files: Mapping[str, Path]
    lost: tuple[str, ...]


def write(
    splits: Mapping[str, DetectionData],
    target: Path,
    format: str,
    *,
    image_files: ImageFiles = "copy",
) -> Written:
    """Write the splits of a dataset into a folder.

    Args:
        splits: by name, such as train and val; the name may be empty if there is only one.
        target: a folder that is empty or does not exist. For a single split as COCO or CSV also the file itself.
        format: name of a format that can be written.
        image_files: copy the images, link to them (symbolic links), or none: leave them where they are. YOLO and VOC
            find images by their place, so that for these two `none` needs `--images` when the data is read.

    Raises:
        UserError: the target is in use.
        ConfigError: no format that can be written has this name.
    """
    _, writer = find_writer(format)
    is_single_file = target.suffix.lower() in _file_suffixes()
    if is_single_file and len(splits) > 1:
        raise UserError(f"{target}: the data has the splits {', '.join(splits)}: give a folder")
    folder = target.parent if is_single_file else target
    if target.is_file() or (not is_single_file and target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} is there already: give another, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    images = {name: _place_images(data, folder, name, writer, image_files) for name, data in splits.items()}
    files = writer.write(splits, WriteTarget(folder=folder, images=images, file=target if is_single_file else None))
    sentences = (sentence for data in splits.values() for sentence in lost(data, format))
    return Written(files=files, lost=tuple(dict.fromkeys(sentences)))


def _file_suffixes() -> set[str]:
    writers = [format.writer for format in all_formats().values() if format.writer is not None]
    return {writer.file_suffix for writer in writers if writer.file_suffix}


def lost(data: DetectionData, format: str) -> Iterator[str]:
    """Yield a sentence for each detail of a dataset that a format cannot store."""
    _, writer = find_writer(format)
    for detail, sentence in _details(data):
        if detail in writer.not_stored:
            yield f"{format} {sentence}"


def _details(data: DetectionData) -> Iterator[tuple[Detail, str]]:
    """Yield the details that a dataset has and a format may be unable to store, and what becomes of them."""
    if data.num_crowd:
        yield "crowd", f"has no crowd or difficult objects: {data.num_crowd:,} of them were left out"
    if data.category_ids != tuple(range(1, len(data.classes) + 1)):
        yield "category_ids", f"has no category ids: they become 1 to {len(data.classes)} in the order of the classes"
    if [record.image_id for record in data.records] != list(range(1, len(data.records) + 1)):
        yield "image_ids", "has no image ids: images are numbered"
    if own := sum(_count_own_areas(record) for record in data.records):
        yield "areas", f"has no areas of objects: {own:,} areas of masks become those of the boxes"
    ids = [i for record in data.records for i in record.annotation_ids]
    if len(set(ids)) == len(ids) and ids and len(data.records) > 1 and data.source.suffix.lower() == ".json":
        yield "annotation_ids", "has no annotation ids: objects are numbered"


def _count_own_areas(record: Record) -> int:
    """Return how many objects have another area than their box."""
    box_areas_G = (record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]).prod(axis=1)
    return int((~np.isclose(record.areas_G, box_areas_G, rtol=1e-6, atol=1e-6)).sum())


def _place_images(
    data: DetectionData, folder: Path, split: str, writer: FormatWriter, image_files: ImageFiles
) -> list[Path]:
    """Copy the images or link to them, and return the path of each afterwards."""
    if image_files == "none":
        return [record.path.absolute() for record in data.records]
    root = folder / writer.image_folder / (split if writer.folder_per_split else "")
    places = [root / name for name in unique_names([record.path for record in data.records])]
    for record, place in zip(data.records, places, strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            raise UserError(f"{place}: two splits hold images of this name: convert them one by one")
        if image_files == "link":
            place.symlink_to(record.path.resolve())
        else:
            with atomic_path(place) as partial:
                shutil.copyfile(record.path, partial)
    return places


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a file name for each path: its own if its stem is unique, else with its folder before it."""
    stems = Counter(path.stem.casefold() for path in paths)
    names, taken = [], set()
    for path in paths:
        name = path.name if stems[path.stem.casefold()] == 1 else "_".join(path.parts[-2:]).replace("/", "_")
        stem, suffix, count = Path(name).stem, Path(name).suffix, 1
        while Path(name).stem.casefold() in taken:
            count += 1
            name = f"{stem}-{count}{suffix}"
        taken.add(Path(name).stem.casefold())
        names.append(name)
    return names
