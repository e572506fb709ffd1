"""Check COCO ground truth before hotcoco reads it. Boxes are xywh, original pixels.

hotcoco, like pycocotools, takes ground truth as it is: annotations with one id count as one object, and an annotation
without a box is left out. Both change the metrics without an error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from numbers import Real
from pathlib import Path
from typing import Any, Final

import hotcoco

from retinanet.errors import UserError
from retinanet.parse import ParseError, parse_json, shorten

GroundTruth = dict[str, Any] | Path | str
_IDS_END: Final = 2**63
"""Limit of ids, which evaluators store in 64 bits."""
FAULTS_SHOWN: Final = 5
"""Number of invalid entries that an error lists."""


class EvaluationError(UserError):
    """The ground truth or the results cannot be evaluated."""


def load_ground_truth(ground_truth: GroundTruth) -> Any:
    """Return the ground truth as a `hotcoco.COCO`.

    Annotations are numbered from 1 if an id is missing, repeated or below 1, which evaluators use for "not matched".

    Args:
        ground_truth: COCO dictionary, or path of a COCO .json. Annotations may omit `id`, `area` (default: width times
            height) and `iscrowd` (default: 0).

    Raises:
        EvaluationError: the ground truth cannot be read, has no images or categories, repeats an image or category id,
            or has an invalid annotation. The message lists the first invalid entries.
    """
    where = str(ground_truth) if isinstance(ground_truth, str | Path) else "ground truth"
    content = read_content(ground_truth)
    images, categories, annotations = _sections(content, where)
    image_ids, category_ids = _ids(images, "image", where), _ids(categories, "category", where)
    checked, faults = [], []
    for number, entry in enumerate(annotations, 1):
        annotation = _annotation(entry, image_ids, category_ids)
        if isinstance(annotation, str):
            faults.append(f"annotation {_position(entry, number)}: {annotation}")
        else:
            checked.append(annotation)
    if faults:
        raise EvaluationError(f"{where}: {list_faults(faults, len(annotations), 'annotations')}")
    ids = [annotation["id"] for annotation in checked]
    if len(set(ids)) < len(ids) or not all(isinstance(i, int) and i > 0 for i in ids):
        checked = [{**annotation, "id": number} for number, annotation in enumerate(checked, 1)]
    return hotcoco.COCO(
        {
            "images": [{"id": image_id} for image_id in image_ids],
            "categories": [
                {"id": i, "name": str(entry.get("name") or f"category {i}")}
                for i, entry in zip(category_ids, categories, strict=True)
            ],
            "annotations": checked,
        }
    )


def read_content(ground_truth: GroundTruth) -> Any:
    """Return the unchecked content of the ground truth. Raises `EvaluationError` for a file that is not JSON."""
    return read_json(Path(ground_truth), "annotations") if isinstance(ground_truth, str | Path) else ground_truth


def category_names(coco: Any) -> list[tuple[str, int]]:
    """Return (name, id) of each category by ascending id, as hotcoco orders categories; repeated names get their id."""
    categories = sorted(coco.load_cats(coco.get_cat_ids()), key=lambda category: category["id"])
    names = [category["name"] for category in categories]
    count = Counter(names)
    return [
        (name if count[name] == 1 else f"{name} (id {category['id']})", category["id"])
        for name, category in zip(names, categories, strict=True)
    ]


def list_faults(faults: list[str], total: int, what: str) -> str:
    """Return a message with the number of faults and the first `FAULTS_SHOWN` of them."""
    more = f"\n  and {len(faults) - FAULTS_SHOWN:,} more" if len(faults) > FAULTS_SHOWN else ""
    shown = "\n  ".join(faults[:FAULTS_SHOWN])
    return f"{len(faults):,} of {total:,} {what} are invalid\n  {shown}{more}"


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def box_fault(bbox: Any) -> str | None:
    """Return a description of what is wrong with an xywh box, or None if it is valid."""
    if not hasattr(bbox, "__len__") or isinstance(bbox, str | dict) or len(bbox) != 4 or not all(map(is_finite, bbox)):
        return f"bbox must be four finite numbers (x, y, width, height), found {shorten(bbox)}"
    if bbox[2] < 0 or bbox[3] < 0:
        return f"bbox must have width and height of 0 or more, found {shorten(bbox)}"
    return None


def read_json(path: Path, what: str) -> Any:
    """Return the content of a JSON file. `what` is the word after "COCO" in messages: "annotations" or "results".

    Raises:
        EvaluationError: the file cannot be read, or is not JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise EvaluationError(f"the COCO {what} cannot be read ({error.strerror}): {path}") from error
    except ParseError as error:
        raise EvaluationError(f"the COCO {what} cannot be read ({error}): {path}") from error


def _sections(content: Any, where: str) -> tuple[list[Any], list[Any], list[Any]]:
    expected = f"{where}. Expected COCO annotations with images and categories"
    if not isinstance(content, dict):
        raise EvaluationError(f"the annotations are a {type(content).__name__}: {expected}")
    sections = [content.get(name) for name in ("images", "categories", "annotations")]
    for name, section in zip(("images", "categories"), sections, strict=False):
        if not isinstance(section, list | tuple) or not section:
            raise EvaluationError(f"the annotations have no {name}: {expected}")
    if not isinstance(sections[2], list | tuple):
        raise EvaluationError(f"the COCO document has no list of annotations: {expected}")
    return list(sections[0]), list(sections[1]), list(sections[2])  # type: ignore[arg-type]


def _ids(entries: list[Any], kind: str, where: str) -> dict[int, None]:
    """Return the ids of images or categories in their order. Raise `EvaluationError` for invalid or repeated ids."""
    ids: dict[int, None] = {}
    faults = []
    for number, entry in enumerate(entries, 1):
        entry_id = whole(entry.get("id")) if isinstance(entry, dict) else None
        if entry_id is None:
            faults.append(f"{kind} at position {number}: expected an object with an integer id, found {shorten(entry)}")
        elif entry_id in ids:
            faults.append(f"{kind} at position {number}: expected a unique id, found the id {entry_id} again")
        else:
            ids[entry_id] = None
    if faults:
        plural = "categories" if kind == "category" else "images"
        raise EvaluationError(f"{where}: {list_faults(faults, len(entries), plural)}")
    return ids


def _annotation(entry: Any, images: Collection[int], categories: Collection[int]) -> dict[str, Any] | str:
    """Return the fields of an annotation that the evaluation uses, or a text that describes its fault."""
    if not isinstance(entry, dict):
        return f"expected an object with image_id, category_id and bbox, found {shorten(entry)}"
    image_id, category_id = whole(entry.get("image_id")), whole(entry.get("category_id"))
    if image_id not in images:
        return f"expected the id of one of the images as image_id, found {shorten(entry.get('image_id'))}"
    if category_id not in categories:
        return f"expected the id of one of the categories as category_id, found {shorten(entry.get('category_id'))}"
    bbox: Any = entry.get("bbox")
    if (fault := box_fault(bbox)) is not None:
        return fault
    crowd = entry.get("iscrowd") or 0
    if crowd not in (0, 1):
        return f"expected 0 or 1 as iscrowd, found {shorten(crowd)}"
    x, y, w, h = map(float, bbox)
    area: Any = entry.get("area")
    return {
        "id": whole(entry.get("id")),
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x, y, w, h],
        "area": float(area) if is_finite(area) and area > 0 else w * h,
        "iscrowd": int(crowd),
    }


def whole(value: Any) -> int | None:
    """Return an integer, also if written as 1.0 (as pandas does), or None for any other value."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    number: Any = value
    return int(number) if math.isfinite(number) and number == int(number) and abs(number) < _IDS_END else None


def _position(entry: Any, number: int) -> str:
    entry_id = entry.get("id") if isinstance(entry, dict) else None
    return f"at position {number}" if entry_id is None else f"{shorten(entry_id)} (position {number})"
