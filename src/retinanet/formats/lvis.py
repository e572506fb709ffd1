"""The LVIS format (lvisdataset.org/dataset): COCO JSON of which each image is labelled for some classes only.

The objects are those of COCO. Of each image, `neg_category_ids` lists classes that the image does not contain, and
`not_exhaustive_category_ids` lists classes of which some objects are not labelled. Both become properties of the image,
and `evaluate --metrics lvis` uses both. LVIS v1 names images by their addresses in COCO (`coco_url`). LVIS v0.5 uses
the names of COCO 2014 for the images of COCO 2017.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.formats.annotation_format import AnnotationFormat, Candidate, DataSource, Evidence, files_of_splits
from retinanet.formats.coco import has_federated_images, position, read_coco
from retinanet.formats.coco_annotations import read_id
from retinanet.formats.folder_walk import files_in
from retinanet.formats.records import SKIP_IMAGE, DetectionData, Fault
from retinanet.parse import shorten

if TYPE_CHECKING:
    from retinanet.formats.builder import ReadOptions

_PREFIX_2014: Final = "COCO_"
"""Start of the names of COCO 2014, such as COCO_train2014_000000000009.jpg."""
LISTS: Final = ("neg_category_ids", "not_exhaustive_category_ids")
"""Fields of an image that list categories."""


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.OWN_FILE if source.suffix == ".json" and has_federated_images(source.json) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    files = _files_in(folder.path)
    others = f", the first of {len(files)} files" if len(files) > 1 else ""
    for file in files:
        yield Candidate(DataSource(file), Evidence.OWN_FILE, f" by its {file.relative_to(folder.path)}{others}")


def _files_in(folder: Path) -> list[Path]:
    """Return the files with the names of the official download, such as annotations/lvis_v1_train.json.

    A file may have a gigabyte, so that its content is no evidence here.
    """
    places = [place for place in (folder / "annotations", folder) if place.is_dir()]
    return [file for place in places for file in files_in(place, ".json") if file.name.startswith("lvis_")]


def _splits_in_folder(folder: Path) -> dict[str, Path]:
    return files_of_splits(_files_in(folder))


def read_lvis(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read an LVIS file: see `formats.read` and `read_coco`. An invalid list of categories is a fault of its image."""
    data = read_coco(source, options, image_name=_image_name)
    faults = (*data.faults, *_faults(source))
    images = [entry for entry in source.json["images"] if isinstance(entry, dict)]
    partial = sum(bool(entry.get("not_exhaustive_category_ids")) for entry in images)
    note = (
        f"LVIS: each image is labelled for some classes only. {partial:,} images have classes of which some objects "
        "are not labelled. `evaluate --metrics lvis` counts labelled classes only"
    )
    return dataclasses.replace(data, faults=faults, notes=(*data.notes, note))


def _image_name(entry: dict[str, Any]) -> Any:
    """Return the name of an image: coco_url (v1), or file_name without the prefix of COCO 2014 (v0.5)."""
    name = entry.get("file_name", entry.get("coco_url"))
    if isinstance(name, str) and name.startswith(_PREFIX_2014):
        return name.rpartition("_")[2]
    return name


def _faults(source: DataSource) -> Iterator[Fault]:
    """Yield a fault for each list of categories that is no list of ids of the file."""
    known = {read_id(entry.get("id")) for entry in source.json["categories"] if isinstance(entry, dict)}
    for number, entry in enumerate(source.json["images"], 1):
        for name in LISTS if isinstance(entry, dict) else ():
            ids = entry.get(name, [])
            if not isinstance(ids, list) or not known.issuperset(map(read_id, ids)):
                what = f"expected ids of categories in {name}, found {shorten(ids)}"
                yield Fault(file=source.path, where=position("image", entry, number), what=what, advice=SKIP_IMAGE)


LVIS: Final = AnnotationFormat(
    name="lvis",
    title="LVIS JSON",
    read=read_lvis,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
    splits_in_folder=_splits_in_folder,
)
