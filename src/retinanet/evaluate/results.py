"""Check COCO results. A result is one detection: image_id, category_id, bbox (xywh, original pixels), score."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retinanet.evaluate.ground_truth import EvaluationError, box_fault, is_finite, list_faults, read_json
from retinanet.parse import shorten

_EXACT: Final = 2**53
"""Integers below this value are exact in float64."""

Results = Sequence[dict[str, Any]] | npt.NDArray[Any] | Path | str


def check_results(coco: Any, results: Results, where: str = "results") -> list[dict[str, Any]]:
    """Return the results as a list of dictionaries, after checking that each fits the ground truth `coco`.

    Args:
        coco: ground truth, a `hotcoco.COCO`.
        results: see `evaluate_results`.
        where: name of the results in error messages.

    Raises:
        EvaluationError: a result is invalid. The message lists the indices of the first invalid results.
    """
    rows = read_rows(results)
    _fast_array(coco, rows, str(results) if isinstance(results, str | Path) else where)
    return list(rows)


def loadable(coco: Any, results: Results) -> Any:
    """Return the checked results in the form that hotcoco loads fastest.

    The form is an array (D, 7), or a list if there are no results or an id is not exact in float64.
    """
    if isinstance(results, np.ndarray):
        _check_shape(results)
        if results.dtype.kind in "iuf" and _is_usable(coco, array := results.astype(np.float64)):
            return array if len(array) else []
    rows = read_rows(results)
    checked = _fast_array(coco, rows, str(results) if isinstance(results, str | Path) else "results")
    return list(rows) if checked is None or not len(checked) else checked


def read_rows(results: Results) -> Sequence[dict[str, Any]]:
    """Return the results as a sequence with unchecked entries.

    Raises:
        EvaluationError: the file cannot be read, or holds no list.
    """
    where = "results"
    if isinstance(results, str | Path):
        where = str(results)
        results = read_json(Path(results), "results")
    rows: object = _from_array(results) if isinstance(results, np.ndarray) else results
    if not isinstance(rows, list | tuple):
        hint = ""
        if isinstance(rows, dict) and "annotations" in rows:
            hint = " with annotations: results are a list of detections, without images and categories"
        raise EvaluationError(f"the COCO results are no list, found {type(rows).__name__}{hint}: {where}")
    return rows


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
        raise EvaluationError(f"{where}: {list_faults(faults, len(rows), 'results')}")


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
    if (fault := box_fault(row["bbox"])) is not None:
        return fault
    return None if is_finite(row["score"]) else f"score must be a finite number, found {shorten(row['score'])}"


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
