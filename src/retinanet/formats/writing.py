"""Write a dataset in another format, so that `formats.read` returns an equal dataset.

Details that the format cannot store are listed. Each file is written under a temporary name and renamed.
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
    """Result of `write`.

    Args:
        files: annotation file or folder of each split.
        lost: a sentence for each detail that the format cannot store.
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
        splits: data of each split, by its name, such as train and val. The name of a single split may be empty.
        target: folder that is empty or does not exist. A single split in COCO or CSV may also be written to a file.
        format: name of a format that can be written.
        image_files: `copy` the images, `link` to the images (symbolic links), or `none`: leave the images in place.
            VOC stores only file names: with `none`, reading the dataset needs `--images`.

    Raises:
        UserError: the target exists, or several splits would go into one file.
        ConfigError: no format that can be written has this name.
    """
    _, writer = find_writer(format)
    is_single_file = target.suffix.lower() in _file_suffixes()
    if is_single_file and len(splits) > 1:
        raise UserError(f"{target}: expected a folder for the splits {', '.join(splits)}, found a file name")
    folder = target.parent if is_single_file else target
    if target.is_file() or (not is_single_file and target.is_dir() and any(target.iterdir())):
        raise UserError(f"{target} already exists: give another path, or remove it first")
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
    """Yield the details of a dataset that some formats cannot store, each with a sentence on its loss."""
    if data.num_crowd:
        yield "crowd", f"stores no ignore regions (crowd or difficult): {data.num_crowd:,} were left out"
    if data.category_ids != tuple(range(1, len(data.classes) + 1)):
        yield "category_ids", f"stores no category ids: they become 1 to {len(data.classes)} in class order"
    if [record.image_id for record in data.records] != list(range(1, len(data.records) + 1)):
        yield "image_ids", "stores no image ids: images are numbered from 1"
    if mask_areas := sum(_count_mask_areas(record) for record in data.records):
        yield "areas", f"stores no areas of objects: {mask_areas:,} mask areas are replaced by box areas"
    ids = [i for record in data.records for i in record.annotation_ids]
    if len(set(ids)) == len(ids) and ids and len(data.records) > 1 and data.source.suffix.lower() == ".json":
        yield "annotation_ids", "stores no annotation ids: objects are numbered"


def _count_mask_areas(record: Record) -> int:
    """Return the number of objects whose area differs from the area of their box."""
    box_areas_G = (record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]).prod(axis=1)
    return int((~np.isclose(record.areas_G, box_areas_G, rtol=1e-6, atol=1e-6)).sum())


def _place_images(
    data: DetectionData, folder: Path, split: str, writer: FormatWriter, image_files: ImageFiles
) -> list[Path]:
    """Copy the images, or create links to the images, and return the new paths."""
    if image_files == "none":
        return [record.path.absolute() for record in data.records]
    root = folder / writer.image_folder / (split if writer.folder_per_split else "")
    places = [root / name for name in unique_names([record.path for record in data.records])]
    for record, place in zip(data.records, places, strict=True):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            raise UserError(f"{place}: two splits have an image of this name: convert each split on its own")
        if image_files == "link":
            place.symlink_to(record.path.resolve())
        else:
            with atomic_path(place) as partial:
                shutil.copyfile(record.path, partial)
    return places


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Return a unique file name for each path: its own if its stem is unique, otherwise prefixed with its folder."""
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
