"""Compute COCO's detection metrics with hotcoco, whose results equal those of pycocotools.

A result is one detection as a COCO dictionary: image_id, category_id, bbox (xywh, original pixels), score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any, Final

import hotcoco
import numpy as np
import numpy.typing as npt

from retinanet.errors import UserError
from retinanet.parse import ParseError, parse_json, shorten

NOT_COMPUTED: Final = -1.0
"""Value of a metric that cannot be computed because the data has no object of that class or size."""

SUMMARY: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""Names of the twelve COCO metrics, in the order of pycocotools."""

MEANING: Final = {
    "AP": "IoU 0.50:0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small, below 32² pixels",
    "APm": "medium",
    "APl": "large, above 96² pixels",
    "AR1": "1 detection per image",
    "AR10": "10 detections per image",
    "AR100": "100 detections per image",
    "ARs": "small",
    "ARm": "medium",
    "ARl": "large",
}
_FAULTS_SHOWN: Final = 5
_EXACT: Final = 2**53
"""Integers below this value are exact in float64."""

Results = Sequence[dict[str, Any]] | npt.NDArray[Any] | Path | str
GroundTruth = dict[str, Any] | Path | str


class EvaluationError(UserError):
    """The ground truth or the results cannot be evaluated."""


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class at up to 100 detections per image; -1 if the ground truth has no object of the class.

    Args:
        AP: average precision, mean over IoU 0.50:0.95.
        AP50: average precision at IoU 0.5.
        AP75: average precision at IoU 0.75.
        AR: recall, mean over IoU 0.50:0.95.
        objects: number of objects in the ground truth, without crowd regions.
    """

    AP: float
    AP50: float
    AP75: float
    AR: float
    objects: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The twelve COCO metrics in [0, 1], and the metrics of each class; -1 if the data has no such object.

    `per_class` has one entry for each category, by ascending category id. If several categories have the same name, the
    id is added to each of these names.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    per_class: dict[str, ClassMetrics]

    def to_json(self) -> dict[str, Any]:
        """Return the twelve metrics and `per_class` (AP, AP50, objects) as plain values for JSON; -1 stays -1."""
        per_class = {
            name: {"AP": row.AP, "AP50": row.AP50, "objects": row.objects} for name, row in self.per_class.items()
        }
        return {**{name: getattr(self, name) for name in SUMMARY}, "per_class": per_class}


def evaluate_results(ground_truth: GroundTruth, results: Results) -> Metrics:
    """Compute COCO's metrics for the boxes of `results`.

    Args:
        ground_truth: COCO dictionary, or path of a COCO .json, which is read without a check of the annotations.
            Annotations may omit `area` (default: width times height) and `iscrowd` (default: 0).
        results: list of COCO results, path of a JSON file with such a list, or array (D, 7) of
            image_id, x, y, w, h, score, category_id. An empty list gives AP 0.

    Raises:
        EvaluationError: the ground truth cannot be read, or a result is invalid or has an image or category id that the
            ground truth lacks. The message lists the indices of the first invalid results.
    """
    run = coco_eval(ground_truth, results)
    run.summary_lines()  # fills `get_results`; `summarize` would print the metrics
    summary = run.get_results()
    precision_TRK = run.eval["precision"][..., 0, -1]  # IoU thresholds, recall levels, classes; all areas, 100 boxes
    recall_TK = run.eval["recall"][..., 0, -1]
    thresholds = list(np.round(run.params.iou_thrs, 2))
    at50, at75 = thresholds.index(0.5), thresholds.index(0.75)
    coco = run.coco_gt
    per_class = {}
    for k, (name, category_id) in enumerate(category_names(coco)):
        per_class[name] = ClassMetrics(
            AP=_mean(precision_TRK[:, :, k]),
            AP50=_mean(precision_TRK[at50, :, k]),
            AP75=_mean(precision_TRK[at75, :, k]),
            AR=_mean(recall_TK[:, k]),
            objects=len(coco.get_ann_ids(img_ids=coco.get_img_ids(), cat_ids=[category_id], iscrowd=False)),
        )
    return Metrics(**{name: float(summary[name]) for name in SUMMARY}, per_class=per_class)


def _mean(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the computed values, as pycocotools does; -1 if there are none."""
    computed = values[values > NOT_COMPUTED]
    return float(computed.mean()) if computed.size else NOT_COMPUTED


def coco_eval(ground_truth: GroundTruth, results: Results) -> Any:
    """Return a `hotcoco.COCOeval` for boxes after matching and accumulation.

    Arguments and errors are those of `evaluate_results`.
    """
    coco = load_ground_truth(ground_truth)
    run = hotcoco.COCOeval(coco, coco.load_res(_loadable(coco, results)), "bbox")
    run.evaluate()
    run.accumulate()
    return run


def load_ground_truth(ground_truth: GroundTruth) -> Any:
    """Return the ground truth as a `hotcoco.COCO`.

    Raises:
        EvaluationError: the ground truth cannot be read, or has no images or categories.
    """
    is_file = isinstance(ground_truth, str | Path)
    where = str(ground_truth) if is_file else "ground truth"
    try:
        coco = hotcoco.COCO(where if is_file else ground_truth)
    except (OSError, TypeError, ValueError) as error:
        raise EvaluationError(f"{where}: expected COCO annotations: {error}") from error
    if not coco.get_img_ids() or not coco.get_cat_ids():
        missing = "images" if not coco.get_img_ids() else "categories"
        raise EvaluationError(f"{where}: expected COCO annotations with images and categories, found no {missing}")
    return coco


def category_names(coco: Any) -> list[tuple[str, int]]:
    """Return (name, id) of each category by ascending id, as hotcoco orders categories; repeated names get their id."""
    categories = sorted(coco.load_cats(coco.get_cat_ids()), key=lambda category: category["id"])
    names = [str(category.get("name") or f"category {category['id']}") for category in categories]
    count = Counter(names)
    return [
        (name if count[name] == 1 else f"{name} (id {category['id']})", category["id"])
        for name, category in zip(names, categories, strict=True)
    ]


def check_results(coco: Any, results: Results) -> list[dict[str, Any]]:
    """Return the results as a list of dictionaries, after checking that each fits the ground truth `coco`.

    Raises:
        EvaluationError: a result is invalid. The message lists the indices of the first invalid results.
    """
    rows, where = _rows(results)
    _fast_array(coco, rows, where)
    return list(rows)


def _loadable(coco: Any, results: Results) -> Any:
    """Return the checked results in the form that hotcoco loads fastest.

    The form is an array (D, 7), or a list if there are no results or an id is not exact in float64.
    """
    if isinstance(results, np.ndarray):
        _check_shape(results)
        if results.dtype.kind in "iuf" and _is_usable(coco, array := results.astype(np.float64)):
            return array if len(array) else []
    rows, where = _rows(results)
    checked = _fast_array(coco, rows, where)
    return list(rows) if checked is None or not len(checked) else checked


def _rows(results: Results) -> tuple[Sequence[dict[str, Any]], str]:
    """Return the results as a sequence with unchecked entries, and their name for messages."""
    where = "results"
    if isinstance(results, str | Path):
        where = str(results)
        results = _read_json(Path(results))
    rows: object = _from_array(results) if isinstance(results, np.ndarray) else results
    if not isinstance(rows, list | tuple):
        hint = ""
        if isinstance(rows, dict) and "annotations" in rows:
            hint = " with annotations: results are a list of detections, without images and categories"
        raise EvaluationError(f"{where}: expected a list of COCO results, found {type(rows).__name__}{hint}")
    return rows, where


def _fast_array(coco: Any, rows: Sequence[dict[str, Any]], where: str) -> npt.NDArray[np.float64] | None:
    """Return the results as an array (D, 7), or None if an id is not exact in float64.

    All results are checked together. Only if that check fails, each result is checked, which takes longer.

    Raises:
        EvaluationError: a result is invalid.
    """
    try:
        values = [(row["image_id"], *row["bbox"], row["score"], row["category_id"]) for row in rows]
        plain = {type(value) for value in chain.from_iterable(values)} <= {int, float}
        if plain and all(map((7).__eq__, map(len, values))):
            array = np.array(values, np.float64).reshape(-1, 7)
            if _is_usable(coco, array):
                return array
    except (KeyError, TypeError, IndexError, ValueError, OverflowError):
        pass  # `_refuse_faults` names the invalid results
    _refuse_faults(coco, rows, where)
    return None


def _is_usable(coco: Any, array_D7: npt.NDArray[np.float64]) -> bool:
    """Return whether all results are valid and all ids of the ground truth are exact in float64."""
    ids = [np.array(sorted(known), dtype=object) for known in (coco.get_img_ids(), coco.get_cat_ids())]
    if any(len(known) and max(abs(known[0]), abs(known[-1])) >= _EXACT for known in ids):
        return False
    image_D, category_D, numbers_D5 = array_D7[:, 0], array_D7[:, 6], array_D7[:, 1:6]
    return bool(
        np.isfinite(numbers_D5).all()
        and (array_D7[:, 3:5] >= 0).all()
        and np.isin(image_D, ids[0].astype(np.float64)).all()
        and np.isin(category_D, ids[1].astype(np.float64)).all()
    )


def _refuse_faults(coco: Any, rows: Sequence[dict[str, Any]], where: str) -> None:
    images, categories = set(coco.get_img_ids()), set(coco.get_cat_ids())
    faults = []
    for i, row in enumerate(rows):
        fault = _fault(row, images, categories)
        if fault:
            faults.append(f"entry {i}: {fault}")
    if faults:
        more = f"\n  and {len(faults) - _FAULTS_SHOWN:,} more" if len(faults) > _FAULTS_SHOWN else ""
        first = "\n  ".join(faults[:_FAULTS_SHOWN])
        raise EvaluationError(f"{where}: {len(faults):,} of {len(rows):,} results are invalid\n  {first}{more}")


def _fault(row: object, images: Collection[int], categories: Collection[int]) -> str | None:
    """Return a description of what is wrong with a result, or None if it is valid."""
    if not isinstance(row, dict):
        return f"expected an object with image_id, category_id, bbox and score, found {shorten(row)}"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in row]
    if missing:
        return f"expected image_id, category_id, bbox and score, found no {', '.join(missing)}"
    for key, known in (("image_id", images), ("category_id", categories)):
        if not isinstance(row[key], Real) or row[key] not in known:
            first = ", ".join(str(value) for value in sorted(known)[:3]) + (", ..." if len(known) > 3 else "")
            return f"{key} {shorten(row[key])} is not in the ground truth, which has {first}"
    bbox = row["bbox"]
    if not isinstance(bbox, list | tuple | np.ndarray) or len(bbox) != 4 or not all(map(_is_finite, bbox)):
        return f"bbox must be four finite numbers (x, y, width, height), found {shorten(bbox)}"
    if bbox[2] < 0 or bbox[3] < 0:
        return f"bbox must have width and height of 0 or more, found {shorten(bbox)}"
    if not _is_finite(row["score"]):
        return f"score must be a finite number, found {shorten(row['score'])}"
    return None


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _check_shape(array: npt.NDArray[Any]) -> None:
    if array.ndim != 2 or array.shape[1] != 7:
        raise EvaluationError(
            "results: expected an array (detections, 7) of image_id, x, y, w, h, score, category_id, "
            f"found an array of shape {array.shape}"
        )


def _from_array(array: npt.NDArray[Any]) -> list[dict[str, Any]]:
    _check_shape(array)
    return [
        {"image_id": image_id, "bbox": bbox, "score": score, "category_id": category_id}
        for image_id, *bbox, score, category_id in array.tolist()
    ]


def _read_json(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise EvaluationError(f"{path}: the results cannot be read: {error.strerror}") from error
    except ParseError as error:
        raise EvaluationError(f"{path}: expected COCO results as JSON: {error}") from error
