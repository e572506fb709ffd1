"""The COCO JSON format (cocodataset.org/#format-data).

A bbox is x, y, width, height in pixels from 0, without a "+1". An annotation without a bbox gets the box around its
segmentation: polygons or a run-length encoded mask. Numbers and ids may be texts if they are unambiguous, such as "12".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from retinanet.formats.annotated_image import AnnotatedImage
from retinanet.formats.annotation_format import (
    AnnotationFormat,
    Candidate,
    DataSource,
    Evidence,
    FormatWriter,
    files_of_splits,
)
from retinanet.formats.box_numbers import BoxNumbers
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.coco_annotations import AnnotationIds, image_key, read_annotation, read_id
from retinanet.formats.folder_walk import files_in
from retinanet.formats.image_files import ImageFinder
from retinanet.formats.output import WriteTarget, relative_path, write_text
from retinanet.formats.records import SKIP_IMAGE, SKIP_OBJECT, DataError, DetectionData
from retinanet.formats.text import LARGEST_SIDE, word
from retinanet.images import ImageError, read_size
from retinanet.parse import shorten

_IMAGE_FIELDS: Final = frozenset(("id", "file_name", "width", "height"))
_ANNOTATION_FIELDS: Final = frozenset(
    ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints", "num_keypoints")
)
_SECTIONS: Final = ("images", "annotations", "categories")


def _recognise_file(source: DataSource) -> Evidence | None:
    """Return evidence for every .json file: if no other format recognises it, the reader reports what is missing."""
    if source.suffix != ".json":
        return None
    is_own = _is_coco(source.json) and not has_federated_images(source.json)
    return Evidence.OWN_FILE if is_own else Evidence.SUFFIX


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(name), list) for name in _SECTIONS)


def has_federated_images(content: Any) -> bool:
    """Return whether parsed JSON is LVIS: COCO JSON whose images list the classes that were not or partly labelled."""
    first = content["images"][0] if _is_coco(content) and content["images"] else None
    return isinstance(first, dict) and "neg_category_ids" in first and "not_exhaustive_category_ids" in first


def _image_name(entry: dict[str, Any]) -> Any:
    # LVIS names its images by their addresses in COCO.
    return entry.get("file_name", entry.get("coco_url"))


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    files = _exported_files(folder.path)
    others = f", the first of {len(files)} files" if len(files) > 1 else ""
    for file in files:
        yield Candidate(DataSource(file), Evidence.EXPORT, f" by its {file.relative_to(folder.path)}{others}")
    first = folder.first_json
    if not files and _splits_in_folder(folder.path) and first is not None and _is_coco(first.json):
        yield Candidate(first, Evidence.EXPORT, f" by its {first.path.name}")


def _exported_files(folder: Path) -> list[Path]:
    """Return the COCO files in exports of Roboflow, Label Studio (result.json), FiftyOne and CVAT (annotations/)."""
    files = [folder / "_annotations.coco.json", folder / "result.json"]
    if (folder / "data").is_dir():  # the images of FiftyOne
        files.append(folder / "labels.json")
    for place in (folder / "annotations", folder / "Annotations"):
        if place.is_dir():
            found = files_in(place, ".json")
            # COCO's other files have captions, key points or panoptic segments of the same images.
            files += [file for file in found if file.name.startswith("instances")] or found
            break
    return [file for file in files if file.is_file()]


def _splits_in_folder(folder: Path) -> dict[str, Path]:
    """Return the file of each split in a folder with several files: instances_val2017.json, or a plain val.json."""
    return files_of_splits(_exported_files(folder) or files_in(folder, ".json"))


def read_coco(
    source: DataSource, options: ReadOptions, *, image_name: Callable[[dict[str, Any]], Any] = _image_name
) -> DetectionData:
    """Read a COCO ground-truth file: see `formats.read`. Category, image and annotation ids are kept.

    Images are searched as `ImageFinder.for_file` describes. Classes are sorted by category id.

    Args:
        source: ground-truth file.
        options: options of the reader.
        image_name: function that returns the written name of an image from its entry.
    """
    builder = DatasetBuilder(source.path, options, BoxNumbers("xywh"))
    content = _check_sections(source.json, source.path)
    names = _read_categories(content["categories"], builder)
    builder.notes += _drop_parent(names, content)
    images = _read_images(content["images"], builder, image_name)
    builder.images = list(images.values())
    # Objects of an invalid image are left out without a fault of their own: the image is a fault already.
    listed = {image_key(entry.get("id")) for entry in content["images"] if isinstance(entry, dict)}
    ids_seen = AnnotationIds()
    for number, entry in enumerate(content["annotations"], 1):
        image_id = image_key(entry.get("image_id")) if isinstance(entry, dict) else None
        image = None if image_id is None else images.get(image_id)
        if isinstance(entry, dict) and image_id in listed and image is None:
            builder.objects_without_image += 1
            continue
        if ids_seen.is_copy(entry):
            continue
        result = read_annotation(entry, number, image, names, builder.selection)
        where = position("annotation", entry, number)
        if image is not None:
            image.add_properties(entry, known=_ANNOTATION_FIELDS)
            builder.add_object(image, result, file=source.path, where=where)
        elif isinstance(result, str):
            builder.add_fault(source.path, where, result, SKIP_OBJECT)
    builder.notes += ids_seen.notes()
    ids: dict[str, int] = {}
    for category_id in sorted(names):
        ids.setdefault(options.selection.rename.get(names[category_id], names[category_id]), category_id)
    return builder.build([names[category_id] for category_id in sorted(names)], ids)


def _check_sections(content: Any, source: Path) -> dict[str, list[Any]]:
    expected = f"{source}. Expected a COCO ground truth, an object with the lists {', '.join(_SECTIONS)}"
    if isinstance(content, list):
        scored = bool(content) and isinstance(content[0], dict) and "score" in content[0]
        what = "COCO results, not ground truth" if scored else "no COCO ground truth, found a list"
        raise DataError(f"the file holds {what}: {expected}")
    if not isinstance(content, dict):
        raise DataError(f"the file holds no COCO ground truth, found {type(content).__name__}: {expected}")
    sections: dict[str, list[Any]] = {}
    for section in _SECTIONS:
        if not isinstance(entries := _as_list(content.get(section)), list):
            problem = f"has {section!r} that is no list" if section in content else f"has no {section!r}"
            other = _other_task(sections.get("annotations"))
            raise DataError(f"the file {problem}{f' and {other}' if other else ''}: {expected}")
        sections[section] = entries
    if other := _other_task(sections["annotations"]):
        raise DataError(f"the file {other}: {expected}")
    return sections


def _other_task(annotations: list[Any] | None) -> str:
    """Return what the annotations are if they are those of another task of COCO, or an empty text."""
    first = annotations[0] if annotations and isinstance(annotations[0], dict) else {}
    found = "panoptic segments" if "segments_info" in first else "captions" if "caption" in first else ""
    return f"holds {found}, no boxes (give the file of the instances)" if found else ""


def _as_list(section: Any) -> Any:
    """Return the entries of a section that is an object {id: entry}, as in LIVECell, or the section as it is."""
    is_object = isinstance(section, dict) and section and all(isinstance(entry, dict) for entry in section.values())
    return list(section.values()) if is_object else section


def _drop_parent(names: dict[int, str], content: dict[str, list[Any]]) -> list[str]:
    """Leave out Roboflow's category 0, which is the parent of all classes and has no objects. Return the notes."""
    # A list, because the values may be unhashable.
    parents = [e.get("supercategory") for e in content["categories"] if isinstance(e, dict)]
    first = next((e for e in content["categories"] if isinstance(e, dict) and e.get("id") == 0), None)
    if first is None or first.get("supercategory") != "none" or first.get("name") not in parents or len(names) < 2:
        return []
    if any(isinstance(e, dict) and e.get("category_id") == 0 for e in content["annotations"]):
        return []
    return [f"category 0, {names.pop(0)!r}, was left out: it is Roboflow's parent of all classes and has no objects"]


def _read_categories(entries: list[Any], builder: DatasetBuilder) -> dict[int, str]:
    """Return the name of each category id."""
    names: dict[int, str] = {}
    for number, entry in enumerate(entries, 1):
        fields = entry if isinstance(entry, dict) else {}
        category_id, name = read_id(fields.get("id")), word(fields.get("name"))
        if category_id is None or name is None:
            what = f"expected an integer 'id' and a text 'name', found {shorten(entry)}"
        elif category_id in names:
            what = f"expected a unique id, found the id of {names[category_id]!r} again for {name!r}"
        elif name in names.values():
            what = f"expected a unique name, found {name!r} in two categories"
        else:
            names[category_id] = name
            continue
        advice = "Correct it, or leave out the category and its objects with --skip-invalid"
        builder.add_fault(builder.source, position("category", entry, number), what, advice)
    return names


def _read_images(
    entries: list[Any], builder: DatasetBuilder, image_name: Callable[[dict[str, Any]], Any]
) -> dict[int | str, AnnotatedImage]:
    """Return the valid images by id. `data.load` finds missing files and images that do not decode."""
    source = builder.source
    finder = ImageFinder.for_file(source, builder.options.images)
    images: dict[int | str, AnnotatedImage] = {}
    for number, entry in enumerate(entries, 1):
        fields = entry if isinstance(entry, dict) else {}
        image_id, name = image_key(fields.get("id")), image_name(fields)
        where = position("image", entry, number)
        if image_id is None or not isinstance(name, str) or not name:
            written_id = shorten(fields.get("id"))
            what = f"expected an 'id' and a text 'file_name', found id {written_id}, file_name {shorten(name)}"
        elif image_id in images:
            what = f"expected a unique id, found the id of {images[image_id].path.name} again for {shorten(name)}"
        else:
            if (path := builder.find_image(finder, name, file=source, where=where)) is None:
                continue
            width, height = read_id(fields.get("width")) or 0, read_id(fields.get("height")) or 0
            try:
                if not 1 <= min(width, height) <= max(width, height) <= LARGEST_SIDE:
                    width, height = read_size(path)
                number_id = image_id if isinstance(image_id, int) else None
                images[image_id] = AnnotatedImage(path, width, height, image_id=number_id)
                images[image_id].add_properties(fields, known=_IMAGE_FIELDS)
                continue
            except ImageError as error:
                what = f"expected width and height above 0, found them neither here nor in the image ({error})"
                builder.add_image_fault(path, what, file=source, where=where)
                continue
        builder.add_fault(source, where, what, SKIP_IMAGE)
    if any(isinstance(image_id, str) for image_id in images):
        for image in images.values():  # without an id, the builder numbers the images
            image.image_id = None
        builder.notes.append("image ids are texts: images are numbered from 1, in the order of the file")
    return images


def position(kind: str, entry: Any, number: int) -> str:
    """Return the position of an entry for a fault: 'annotation 1768' by its id, or its position in the list."""
    entry_id = entry.get("id") if isinstance(entry, dict) else None
    if entry_id is None:
        return f"{kind} at position {number}"
    return f"{kind} {shorten(entry_id)[1:-1] if isinstance(entry_id, str) else shorten(entry_id)}"


def write_coco(splits: Mapping[str, DetectionData], target: WriteTarget) -> dict[str, Path]:
    """Write a COCO file for each split and return its path."""
    written = {}
    for name, data in splits.items():
        path = target.file or target.folder / f"{name or 'annotations'}.json"
        content = data.to_coco()
        for image, image_path in zip(content["images"], target.images[name], strict=True):
            image["file_name"] = relative_path(image_path, path.parent)
        written[name] = write_text(path, json.dumps(content, ensure_ascii=False))
    return written


COCO: Final = AnnotationFormat(
    name="coco",
    title="COCO JSON",
    read=read_coco,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
    expects="a COCO .json",
    splits_in_folder=_splits_in_folder,
    writer=FormatWriter(write=write_coco, file_suffix=".json"),
)
