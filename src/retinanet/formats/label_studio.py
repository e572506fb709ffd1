"""Label Studio's JSON and JSON-MIN exports: a list of tasks, with boxes in percent of the image.

A rectangle has x, y, width, height and a rotation about its upper left corner. Polygons and ellipses are replaced by
their bounding boxes. Brush strokes and key points are faults. If a task has several annotations, the one marked as
ground truth is read, otherwise the first. Label Studio's COCO, VOC, YOLO and CSV exports are read in their own formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import AnnotationFormat, Candidate, DataSource, Evidence
from retinanet.formats.box_numbers import BoxNumbers
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.geometry import box_around, box_around_rotated
from retinanet.formats.image_files import ImageFinder, image_size, readings
from retinanet.formats.records import SKIP_IMAGE, DataError, DetectionData
from retinanet.formats.text import finite_number
from retinanet.images import IMAGE_SUFFIXES, ImageError
from retinanet.parse import shorten

_IMAGE_TAGS: Final = {"choices": "choices", "number": "number", "textarea": "text"}
"""Type of a result that may describe the whole image -> key of its value."""
_IMAGE_KEYS: Final = ("image", "img", "picture", "photo")
_SHAPE_KEYS: Final = ("x", "y", "width", "height", "rotation", "radiusX", "radiusY", "points")


def is_label_studio(content: Any) -> bool:
    """Return whether parsed JSON is a Label Studio export."""
    first = content[0] if isinstance(content, list) and content else None
    return (
        isinstance(first, dict)
        and "score" not in first
        and (
            ("annotations" in first and isinstance(first.get("data"), dict))
            or ("annotator" in first and ("image" in first or "annotation_id" in first))
        )
    )


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.OWN_FILE if source.suffix == ".json" and is_label_studio(source.json) else None


def _recognise_folder(folder: DataSource) -> Iterator[Candidate]:
    if (first := folder.first_json) is not None and is_label_studio(first.json):
        yield Candidate(first, Evidence.FILES, f" by its {first.path.name}")


def read_label_studio(source: DataSource, options: ReadOptions) -> DetectionData:
    """Read an export: see `formats.read`. Classes are the labels of the objects, sorted."""
    content: Any = source.json if source.suffix == ".json" else None
    if not is_label_studio(content):
        raise DataError(
            f"{source.path}: expected a list of Label Studio's tasks with `data` and `annotations`, found other content"
        )
    builder = DatasetBuilder(source.path, options, BoxNumbers("xywh", "percent"))
    finder = ImageFinder.for_file(source.path, options.images)
    several = unlabelled = 0
    for number, task in enumerate(content, 1):
        where = f"task {task.get('id', number)}" if isinstance(task, dict) else f"task {number}"
        if not isinstance(task, dict) or (name := _image_name(task)) is None:
            builder.add_fault(source.path, where, "expected an image in `data`, found none", SKIP_IMAGE)
            continue
        results, has_several = _results(task)
        several += has_several
        if results is None:
            unlabelled += 1
            continue
        if (path := builder.find_image(finder, name, file=source.path, where=where, objects=len(results))) is None:
            continue
        if (image := _image(path, results, builder, where)) is None:
            continue
        image.add_properties(_fields(task, results))
        builder.images.append(image)
        _add_objects(results, image, where, builder)
    if several:
        builder.notes.append(f"{several:,} tasks have several annotations: the ground truth or the first was read")
    if unlabelled:
        builder.notes.append(
            f"{unlabelled:,} tasks were left out: they have no annotation, or only predictions and skipped annotations"
        )
    return builder.build()


def _image(path: Path, results: list[Any], builder: DatasetBuilder, where: str) -> AnnotatedImage | None:
    """Return the image of a task, or None after adding a fault."""
    fields = [result for result in results if isinstance(result, dict)]
    if turned := next((result["image_rotation"] for result in fields if result.get("image_rotation")), None):
        what = f"expected regions of the upright image, found image_rotation {shorten(turned)}"
        builder.add_fault(builder.source, where, what, "Turn the image back in Label Studio, and export it again")
        return None
    sized = next((result for result in fields if result.get("original_width")), {})
    try:
        return AnnotatedImage(path, *image_size(path, sized.get("original_width"), sized.get("original_height")))
    except ImageError as error:
        what = f"expected the image size, found it neither in the annotations nor in the image ({error})"
        builder.add_image_fault(path, what, file=builder.source, where=where, objects=len(results))
        return None


def _image_name(task: dict[str, Any]) -> str | None:
    """Return the image of a task as it is written, or None: /data/upload/1/0a1b2c3d-a.jpg, s3://bucket/a.jpg, ..."""
    fields = task["data"] if isinstance(task.get("data"), dict) else task
    value = next((fields[key] for key in _IMAGE_KEYS if isinstance(fields.get(key), str)), None)
    if value is None:
        texts = [v for v in fields.values() if isinstance(v, str) and "." in v.rsplit("/", 1)[-1]]
        named = (v for v in texts if any(PurePosixPath(r).suffix.lower() in IMAGE_SUFFIXES for r in readings(v)))
        value = next(named, texts[0] if texts else None)
    return value


def _fields(task: dict[str, Any], results: list[Any]) -> dict[str, Any]:
    """Return the fields of a task, and its choices, numbers and texts for the image by the names of their tags."""
    if isinstance(task.get("data"), dict):
        fields = {**task["data"], "meta": task.get("meta")}
    else:  # JSON-MIN, where a list of objects holds regions
        fields = {k: v for k, v in task.items() if not (isinstance(v, list) and v and isinstance(v[0], dict))}
    for result in results:
        if isinstance(result, dict) and result.get("type") in _IMAGE_TAGS and isinstance(result.get("value"), dict):
            fields[str(result.get("from_name"))] = result["value"].get(_IMAGE_TAGS[result["type"]])
    return fields


def _results(task: dict[str, Any]) -> tuple[list[Any] | None, bool]:
    """Return the results of one annotation of a task, or None without any, and whether the task has several."""
    if not isinstance(task.get("annotations"), list):
        return list(_results_of_fields(task)), False
    annotations = [a for a in task["annotations"] if isinstance(a, dict) and not a.get("was_cancelled")]
    if not annotations:
        return None, False
    chosen = next((a for a in annotations if a.get("ground_truth")), annotations[0])
    results = chosen.get("result")
    return (results if isinstance(results, list) else []), len(annotations) > 1


def _results_of_fields(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the results of a JSON-MIN task, which has a field for each tag of the labelling interface.

    Separate tags for shape and label repeat the shape in both fields. Equal shapes of two fields get one id.
    """
    for field in task.values():
        counts = Counter[str]()
        for result in field if isinstance(field, list) else ():
            if isinstance(result, dict):
                shape = str([result.get(key) for key in _SHAPE_KEYS])
                counts[shape] += 1
                yield {"id": f"{shape} {counts[shape]}", **result}


def _add_objects(results: list[Any], image: AnnotatedImage, where: str, builder: DatasetBuilder) -> None:
    """Add the objects of a task to the builder."""
    for number, (value, labels) in enumerate(_regions(results), 1):
        result = _parse_object(value, labels, number, image, builder.selection)
        builder.add_object(image, result, file=builder.source, where=f"{where}, region {number}")


def _regions(results: list[Any]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield the shape and the labels of each region. Separate tags give two results with one id per region."""
    regions: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for index, result in enumerate(results):
        if not isinstance(result, dict):
            regions[f"?{index}"] = ({}, [])
            continue
        value = result["value"] if isinstance(result.get("value"), dict) else result
        if not any(key.endswith("labels") or key in {"x", "points", "rle"} for key in value):
            continue  # choices and texts belong to the whole image
        labels = [
            str(v) for k, names in value.items() if k.endswith("labels") and isinstance(names, list) for v in names
        ]
        key = str(result.get("id", f"?{index}"))
        shape, earlier = regions.get(key, ({}, []))
        regions[key] = (shape or value if "x" not in value else value, list(dict.fromkeys([*earlier, *labels])))
    yield from regions.values()


def _parse_object(
    value: dict[str, Any], labels: list[str], number: int, image: AnnotatedImage, selection: ClassSelection
) -> AnnotatedObject | str | None:
    """Return an object, a text that describes its fault, or None if its class is left out."""
    if len(labels) != 1:
        return f"expected one label, found {', '.join(labels) or 'none'}"
    if (name := selection.new_name(labels[0])) is None:
        return None
    if fault := selection.fault(name):
        return fault
    corners = _corners(value, image)
    if isinstance(corners, str):
        return corners
    reduced = "points" in value or "radiusX" in value or bool(finite_number(value.get("rotation")))
    return AnnotatedObject(number, name, corners, reduced=reduced)


def _corners(value: dict[str, Any], image: AnnotatedImage) -> tuple[float, float, float, float] | str:
    """Return the xyxy bounding box of a shape in pixels, or a text that describes its fault."""
    W, H = image.width / 100, image.height / 100
    degrees = finite_number(value.get("rotation")) or 0.0
    if isinstance(value.get("points"), list):
        points = [[finite_number(v) for v in point] if isinstance(point, list) else [] for point in value["points"]]
        valid = [(p[0] * W, p[1] * H) for p in points if len(p) == 2 and p[0] is not None and p[1] is not None]
        if len(valid) < len(points) or not points:
            return f"expected points (x, y) in percent, found {shorten(value['points'])}"
        return box_around(valid)
    if "radiusX" in value:
        x, y, rx, ry = (finite_number(value.get(key)) for key in ("x", "y", "radiusX", "radiusY"))
        if x is None or y is None or rx is None or ry is None:
            return "expected finite numbers in x, y, radiusX, radiusY"
        return box_around_rotated((x - rx) * W, (y - ry) * H, 2 * rx * W, 2 * ry * H, degrees, about=(x * W, y * H))
    x, y, w, h = (finite_number(value.get(key)) for key in ("x", "y", "width", "height"))
    if "rle" in value or "width" not in value or "height" not in value:
        return "expected a rectangle, a polygon or an ellipse, found another shape"
    if x is None or y is None or w is None or h is None:
        found = shorten([value.get(key) for key in ("x", "y", "width", "height")])
        return f"expected finite numbers in x, y, width, height, found {found}"
    return box_around_rotated(x * W, y * H, w * W, h * H, degrees, about=(x * W, y * H))


LABEL_STUDIO: Final = AnnotationFormat(
    name="label_studio",
    title="Label Studio JSON",
    read=read_label_studio,
    recognise_file=_recognise_file,
    recognise_folder=_recognise_folder,
)
