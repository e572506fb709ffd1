"""COCO's detection metrics, computed by hotcoco (pycocotools' definitions, to the last digit).

A result is a dictionary as COCO defines it: image_id, category_id, bbox (xywh, original pixels), score.
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
"""COCO's number for an average over nothing: no object of that class or size in the data."""

SUMMARY: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers of the COCO challenge, in its order."""

MEANING: Final = {
    "AP": "IoU 0.50:0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small, below 32² pixels",
    "APm": "medium",
    "APl": "large, above 96² pixels",
    "AR1": "1 detection an image",
    "AR10": "10 detections an image",
    "AR100": "100 detections an image",
    "ARs": "small",
    "ARm": "medium",
    "ARl": "large",
}
_FAULTS_SHOWN: Final = 5
_EXACT: Final = 2**53
"""Integers below this are exact in float64."""

Results = Sequence[dict[str, Any]] | npt.NDArray[Any] | Path | str
GroundTruth = dict[str, Any] | Path | str


class EvaluationError(UserError):
    """Ground truth or results that cannot be evaluated."""


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class's numbers at up to 100 detections an image; -1 where it has no object.

    Args:
        AP: average precision, mean over IoU 0.50:0.95.
        AP50: average precision at IoU 0.5.
        AP75: average precision at IoU 0.75.
        AR: recall, mean over IoU 0.50:0.95.
        objects: objects in the ground truth, crowd regions not counted.
    """

    AP: float
    AP50: float
    AP75: float
    AR: float
    objects: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """COCO's twelve numbers in [0, 1], and each class's own; -1 where there is no such object.

    `per_class` has one entry for each category in the order of their ids; a name that repeats has its id added.
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
        """Return the twelve numbers and `per_class` (AP, AP50, objects); -1 stays -1."""
        per_class = {
            name: {"AP": row.AP, "AP50": row.AP50, "objects": row.objects} for name, row in self.per_class.items()
        }
        return {**{name: getattr(self, name) for name in SUMMARY}, "per_class": per_class}


def evaluate_results(ground_truth: GroundTruth, results: Results) -> Metrics:
    """Compute COCO's metrics for the boxes of `results`.

    Args:
        ground_truth: a COCO dictionary, or the path of a COCO .json, which is read as it stands.
            `area` (width times height) and `iscrowd` (0) may be missing.
        results: a list of COCO results, the path of one as JSON, or an array of
            (image_id, x, y, w, h, score, category_id). No result at all gives AP 0.

    Raises:
        EvaluationError: ground truth that cannot be read, or results that do not fit it, each named by its index.
    """
    run = coco_eval(ground_truth, results)
    run.summary_lines()  # computes what `get_results` returns, and unlike `summarize` prints nothing
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
    """Mean of what was computed, as pycocotools takes it."""
    computed = values[values > NOT_COMPUTED]
    return float(computed.mean()) if computed.size else NOT_COMPUTED


def coco_eval(ground_truth: GroundTruth, results: Results) -> Any:
    """Return a `hotcoco.COCOeval` for boxes, matched and accumulated. Arguments and errors: `evaluate_results`."""
    coco = load_ground_truth(ground_truth)
    run = hotcoco.COCOeval(coco, coco.load_res(_loadable(coco, results)), "bbox")
    run.evaluate()
    run.accumulate()
    return run


def load_ground_truth(ground_truth: GroundTruth) -> Any:
    """Return a `hotcoco.COCO` of a COCO dictionary or file."""
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
    """Return (name, id) of each category by ascending id, the order of the evaluator; repeated names made unique."""
    categories = sorted(coco.load_cats(coco.get_cat_ids()), key=lambda category: category["id"])
    names = [str(category.get("name") or f"category {category['id']}") for category in categories]
    count = Counter(names)
    return [
        (name if count[name] == 1 else f"{name} (id {category['id']})", category["id"])
        for name, category in zip(names, categories, strict=True)
    ]


def check_results(coco: Any, results: Results) -> list[dict[str, Any]]:
    """Return the results as a list of dictionaries, every one of them fit to be evaluated against `coco`.

    Raises:
        EvaluationError: with the index of each of the first few that are not.
    """
    rows, where = _rows(results)
    _fast_array(coco, rows, where)
    return list(rows)


def _loadable(coco: Any, results: Results) -> Any:
    """Return the results, checked, as what hotcoco takes fastest: an array (D, 7), or none and large ids as a list."""
    if isinstance(results, np.ndarray):
        _check_shape(results)
        if results.dtype.kind in "iuf" and _is_usable(coco, found := results.astype(np.float64)):
            return found if len(found) else []
    rows, where = _rows(results)
    array = _fast_array(coco, rows, where)
    return list(rows) if array is None or not len(array) else array


def _rows(results: Results) -> tuple[Sequence[dict[str, Any]], str]:
    """Return the results as a sequence, its entries unchecked, and what to call it."""
    where = "results"
    if isinstance(results, str | Path):
        where = str(results)
        results = _read_json(Path(results))
    rows: object = _from_array(results) if isinstance(results, np.ndarray) else results
    if not isinstance(rows, list | tuple):
        hint = ""
        if isinstance(rows, dict) and "annotations" in rows:
            hint = ": these look like annotations; results are the list of detections alone"
        raise EvaluationError(f"{where}: expected a list of COCO results, found {type(rows).__name__}{hint}")
    return rows, where


def _fast_array(coco: Any, rows: Sequence[dict[str, Any]], where: str) -> npt.NDArray[np.float64] | None:
    """Return the results as (D, 7) if plain numbers can hold them; raise for every fault.

    One look at all together; only where something is out of the ordinary they are looked at one by one.
    """
    try:
        values = [(row["image_id"], *row["bbox"], row["score"], row["category_id"]) for row in rows]
        plain = {type(value) for value in chain.from_iterable(values)} <= {int, float}
        if plain and all(map((7).__eq__, map(len, values))):
            array = np.array(values, np.float64).reshape(-1, 7)
            if _is_usable(coco, array):
                return array
    except (KeyError, TypeError, IndexError, ValueError, OverflowError):
        pass  # named below
    _refuse_faults(coco, rows, where)
    return None


def _is_usable(coco: Any, array_D7: npt.NDArray[np.float64]) -> bool:
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
        some = "\n  ".join(faults[:_FAULTS_SHOWN])
        raise EvaluationError(f"{where}: {len(faults):,} of {len(rows):,} results cannot be used\n  {some}{more}")


def _fault(row: object, images: Collection[int], categories: Collection[int]) -> str | None:
    """Say what is wrong with a result, or None."""
    if not isinstance(row, dict):
        return f"expected an object with image_id, category_id, bbox and score, found {shorten(row)}"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in row]
    if missing:
        return f"{', '.join(missing)} missing"
    for key, known in (("image_id", images), ("category_id", categories)):
        if not isinstance(row[key], Real) or row[key] not in known:
            some = ", ".join(str(value) for value in sorted(known)[:3]) + (", ..." if len(known) > 3 else "")
            return f"{key} {shorten(row[key])} is not in the ground truth, which has {some}"
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
            f"found one of shape {array.shape}"
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
        raise EvaluationError(f"{path}: {error.strerror}") from error
    except ParseError as error:
        raise EvaluationError(f"{path}: expected COCO results as JSON: {error}") from error
