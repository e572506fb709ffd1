"""Read a file of COCO results for a dataset: match its ids with the data, and check its boxes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.data import read
from retinanet.evaluate.ground_truth import EvaluationError, load_ground_truth
from retinanet.evaluate.results import check_results, read_rows
from retinanet.formats.folder_walk import comparable
from retinanet.formats.image_files import AmbiguousImageError, readings
from retinanet.formats.record_ids import ids_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.config import EvaluateConfig
    from retinanet.data import DetectionData

    Rows = list[dict[str, Any]]

MARGIN: Final = 1.0
"""Distance in pixels that a box may extend over its image, by rounding."""
MOSTLY: Final = 0.5
"""Share of boxes outside their images above which boxes are taken as corners."""


def read_results(path: Path, data: DetectionData, config: EvaluateConfig) -> tuple[Rows, tuple[str, ...]]:
    """Return the results of a file with the image and category ids of `data`, and notes about changes.

    - Texts as ids are numbers, file names (with or without suffix) or class names.
    - If the results name their images (`file_name`, as `retinanet predict` writes it) and the names contradict the
      ids, the images are matched by name.
    - Detections of classes and images that the selection or `skip_invalid` leaves out are left out.

    Args:
        path: JSON file with a list of COCO results.
        data: ground truth.
        config: options that `data` was read with.

    Raises:
        EvaluationError: a result is invalid, has an image or category that the data lacks, or the boxes are corners or
            fractions instead of x, y, width and height in pixels.
    """
    rows, notes = list(read_rows(path)), []
    for change in (_match_texts, _match_file_names, _leave_out_images):
        rows, note = change(rows, data)
        notes += note
    rows, note = _select_classes(rows, data, config)
    rows = check_results(load_ground_truth(data.to_coco()), rows, str(path))
    _check_boxes(rows, data, path)
    return rows, (*notes, *note, *_score_notes(rows))


def _score_notes(rows: Rows) -> list[str]:
    """Return notes about valid results whose scores or repetitions make the metrics misleading."""
    notes = []
    times = Counter((row["image_id"], row["category_id"], *row["bbox"], row["score"]) for row in rows)
    if repeated := len(rows) - len(times):
        notes.append(
            f"{repeated:,} of {len(rows):,} results repeat another result (same image, category, box and score) and "
            "count as false positives: was a part of the images predicted twice, or were files joined twice?"
        )
    scores = {row["score"] for row in rows}
    if len(rows) > 1 and len(scores) == 1:
        notes.append(
            f"all {len(rows):,} results have the score {scores.pop():g}: AP needs scores that rank the results, and "
            "depends on their order in the file otherwise"
        )
    elif scores and max(scores) > 1:
        notes.append(
            f"scores reach {max(scores):g}: AP only ranks them, but thresholds such as that of the confusion matrix "
            "expect scores in [0, 1]"
        )
    return notes


def _match_texts(rows: Rows, data: DetectionData) -> tuple[Rows, list[str]]:
    """Return the results with numbers for texts as ids, such as "12", the name of an image, or the name of a class."""
    if not any(isinstance(row, dict) and (_is_text(row, "image_id") or _is_text(row, "category_id")) for row in rows):
        return rows, []
    names = [(name, record.image_id) for record in data.records for name in {record.path.name, record.path.stem}]
    times = Counter(name for name, _ in names)
    image_ids = {name: image_id for name, image_id in names if times[name] == 1}
    image_ids |= {str(record.image_id): record.image_id for record in data.records}
    category_ids = dict(zip(data.classes, data.category_ids, strict=True))
    category_ids |= {str(category_id): category_id for category_id in data.category_ids}
    changed, count = [], Counter[str]()
    for row in rows:
        new = row
        for key, ids in (("image_id", image_ids), ("category_id", category_ids)):
            if isinstance(row, dict) and _is_text(row, key) and row[key] in ids:
                new, count[key] = {**new, key: ids[row[key]]}, count[key] + 1
        changed.append(new)
    found = " and ".join(f"{n:,} times as {key}" for key, n in count.items())
    return changed, [
        f"the results have texts as ids, {found}: they were matched with the ids and names of the data"
    ] if found else []


def _match_file_names(rows: Rows, data: DetectionData) -> tuple[Rows, list[str]]:
    """Return the results with image ids by their file names, if the file names contradict the image ids."""
    if not rows or not all(isinstance(row, dict) and isinstance(row.get("file_name"), str) for row in rows):
        return rows, []
    names = {record.image_id: comparable(record.path.name) for record in data.records}
    if all(names.get(_key(row, "image_id")) in _last_parts(row["file_name"]) for row in rows):
        return rows, []
    written = list(dict.fromkeys(row["file_name"] for row in rows))
    try:
        ids = dict(zip(written, ids_in(data.records, written), strict=True))
    except AmbiguousImageError as error:
        raise EvaluationError(
            f"the image ids of the results differ from those of {data.source}, so that their file_name decides: "
            f"{error}. Write the ids of the data, or more of the path of each image"
        ) from error
    missing = [name for name, image_id in ids.items() if image_id is None]
    if len(missing) == len(ids):
        return rows, []  # the ids decide: names of another naming scheme
    notes = ["the image ids of the results differ from those of the data: images were matched by their file_name"]
    if missing:
        left_out = sum(row["file_name"] in missing for row in rows)
        notes.append(
            f"{left_out:,} detections in {len(missing):,} images that the data lacks were left out ({_few(missing)})"
        )
    matched = [{**row, "image_id": ids[row["file_name"]]} for row in rows if ids[row["file_name"]] is not None]
    return matched, notes


def _leave_out_images(rows: Rows, data: DetectionData) -> tuple[Rows, list[str]]:
    """Leave out detections in images that were left out as invalid."""
    known = {record.image_id for record in data.records}
    kept = [row for row in rows if not isinstance(row, dict) or _key(row, "image_id") in known] if data.faults else rows
    if len(kept) == len(rows) or not kept:
        return rows, []
    return kept, [f"{len(rows) - len(kept):,} detections in images that the data lacks were left out"]


def _select_classes(rows: Rows, data: DetectionData, config: EvaluateConfig) -> tuple[Rows, list[str]]:
    """Return the results with the category ids of `data`, without the classes that the selection leaves out.

    The ids are those of the whole dataset, if its format has ids (COCO). Other formats number the selected classes.
    """
    selection = config.dataset.selection
    if not (selection.classes or selection.ignore_classes or selection.ignore_regions or selection.rename):
        return rows, []
    reading = {**config.dataset.reading, "keep": (), "ignore": (), "regions": (), "rename": None}
    whole = read(config.data, images=selection.images, split="val", **reading)
    rename, ids = config.dataset.reading["rename"], dict(zip(data.classes, data.category_ids, strict=True))
    names = dict(zip(whole.category_ids, whole.classes, strict=True))
    new_ids = {category_id: ids.get(rename.get(name, name)) for category_id, name in names.items()}
    if any(new_ids.get(category_id, category_id) != category_id for category_id in data.category_ids):
        return rows, []
    kept, left_out = [], Counter[str]()
    for row in rows:
        category_id = _key(row, "category_id") if isinstance(row, dict) else None
        if category_id not in new_ids:
            kept.append(row)  # `check_results` refuses it
        elif (new_id := new_ids[category_id]) is None:
            left_out[names[category_id]] += 1
        else:
            kept.append({**row, "category_id": new_id})
    if not left_out:
        return kept, []
    return kept, [f"detections of classes that the selection leaves out were left out: {_counts(left_out)}"]


def _check_boxes(rows: Rows, data: DetectionData, path: Path) -> None:
    """Raise `EvaluationError` if the boxes are corners or fractions instead of x, y, width, height in pixels."""
    if not rows:
        return
    sizes = {record.image_id: (record.width, record.height) for record in data.records}
    sides_D2 = np.array([sizes[int(row["image_id"])] for row in rows], np.float64)
    boxes_D4 = np.array([row["bbox"] for row in rows], np.float64)
    start_D2, other_D2 = boxes_D4[:, :2], boxes_D4[:, 2:]
    where = f"{path}. Expected x, y, width, height in pixels"
    if boxes_D4.max() <= 1 and (boxes_D4 % 1).any() and sides_D2.max() > 2:
        raise EvaluationError(
            f"the boxes are fractions: {where}, but no value exceeds 1, for example {rows[0]['bbox']} in an image of "
            f"{sides_D2[0, 0]:g}x{sides_D2[0, 1]:g} pixels. Multiply x and width by the image width, y and height by "
            "the image height"
        )
    outside_D = (start_D2 + other_D2 > sides_D2 + MARGIN).any(axis=1)
    as_corners = (other_D2 >= start_D2).all() and (other_D2 <= sides_D2 + MARGIN).all()
    if as_corners and outside_D.mean() > MOSTLY:
        first = int(outside_D.argmax())
        raise EvaluationError(
            f"the boxes are corners: {where}, but {outside_D.sum():,} of {len(rows):,} boxes end outside "
            f"their image, and all lie inside it if they are read as x1, y1, x2, y2, for example "
            f"{rows[first]['bbox']} in an image of "
            f"{sides_D2[first, 0]:g}x{sides_D2[first, 1]:g} pixels. Write x1, y1, x2 - x1, y2 - y1"
        )


def _key(row: dict[str, Any], name: str) -> Any:
    value = row.get(name)
    return value if isinstance(value, int | float) else None


def _is_text(row: dict[str, Any], key: str) -> bool:
    return isinstance(row.get(key), str)


def _last_parts(name: str) -> set[str]:
    """Return the file names that a written path can stand for, in a form to compare."""
    return {comparable(text.rpartition("/")[2]) for text in readings(name)}


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _counts(counts: Counter[str]) -> str:
    return _few([f"{n:,} of {name}" for name, n in counts.most_common()])
