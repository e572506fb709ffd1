"""Compute the metrics of LVIS and Open Images with hotcoco.

LVIS (Gupta et al., arXiv 1908.03195): of each image, only some classes are labelled. A detection of another class is
ignored. Open Images (Kuznetsova et al., arXiv 1811.00982): a box may hold a group of objects.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import hotcoco

from retinanet.evaluate.coco import NOT_COMPUTED
from retinanet.evaluate.ground_truth import GroundTruth, category_names, load_ground_truth, read_content, whole
from retinanet.evaluate.results import Results, loadable

if TYPE_CHECKING:
    from pathlib import Path

LVIS_MAX_DETECTIONS: Final = 300
"""Number of detections per image that LVIS counts, of all classes together."""
RARE_TO, COMMON_TO = 10, 100
"""Greatest number of images with objects of a rare class, and of a common class (LVIS)."""
LVIS_SUMMARY: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR", "ARs", "ARm", "ARl")
"""Names of the metrics of LVIS. APr, APc and APf are those of rare, common and frequent classes."""


@dataclass(frozen=True, kw_only=True)
class FederatedMetrics:
    """Metrics of LVIS or Open Images; -1 without objects.

    Args:
        summary: metrics by name: `LVIS_SUMMARY`, or AP50 for Open Images.
        per_class: AP of each class (LVIS), or AP50 of each class (Open Images).
        frequencies: r (rare), c (common) or f (frequent) for each class; empty for Open Images.
    """

    summary: dict[str, float]
    per_class: dict[str, float]
    frequencies: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        per_class: dict[str, Any] = {name: {"AP50": value} for name, value in self.per_class.items()}
        if self.frequencies:
            per_class = {
                name: {"AP": value, "frequency": self.frequencies[name]} for name, value in self.per_class.items()
            }
        return {**self.summary, "per_class": per_class}


def lvis_metrics(ground_truth: GroundTruth, results: Results) -> FederatedMetrics:
    """Compute the metrics of LVIS for boxes. At most 300 detections per image count, those with the highest scores.

    Args:
        ground_truth: see `evaluate_results`. An image may have `neg_category_ids` and `not_exhaustive_category_ids`.
            An image without `neg_category_ids` is labelled exhaustively. A category may have a `frequency` of r, c or
            f. If a category lacks it, the frequencies of all categories are computed from the numbers of images with
            their objects: rare up to 10, common up to 100.
        results: see `evaluate_results`.

    Raises:
        EvaluationError: see `evaluate_results`.
    """
    coco, content = load_ground_truth(ground_truth), read_content(ground_truth)
    every_id = coco.get_cat_ids()
    fields = {whole(entry["id"]): entry for entry in content["images"]}
    truth = coco.dataset
    images = [
        {
            "id": image["id"],
            "neg_category_ids": _ids(fields[image["id"]].get("neg_category_ids"), every_id),
            "not_exhaustive_category_ids": _ids(fields[image["id"]].get("not_exhaustive_category_ids"), []),
        }
        for image in truth["images"]
    ]
    frequencies = _frequencies(content["categories"], truth["annotations"])
    categories = [{"id": i, "name": str(i), "frequency": frequencies[i]} for i in coco.get_cat_ids()]
    federated = hotcoco.COCO({"images": images, "categories": categories, "annotations": truth["annotations"]})
    loaded = hotcoco.LVISResults(federated, loadable(coco, results), LVIS_MAX_DETECTIONS)
    run = hotcoco.COCOeval(federated, loaded, "bbox", lvis_style=True)
    numbers = _run(run)
    names = category_names(coco)
    return FederatedMetrics(
        summary={name: numbers[f"{name}@300" if name.startswith("AR") else name] for name in LVIS_SUMMARY},
        per_class=_class_aps(numbers, names),
        frequencies={name: frequencies[category_id] for name, category_id in names},
    )


def open_images_metrics(ground_truth: GroundTruth, results: Results) -> FederatedMetrics:
    """Compute AP of Open Images at IoU 0.5, without a class hierarchy and without image-level labels.

    A detection with at least half of its area in a group belongs to the group. Of a group's detections, the one with
    the highest score counts as a true positive, and the others are ignored. A group without a detection counts as a
    missed object.

    Args:
        ground_truth: see `evaluate_results`. An annotation with `is_group_of`, or a crowd region, is a group.
        results: see `evaluate_results`.

    Raises:
        EvaluationError: see `evaluate_results`.
    """
    coco, content = load_ground_truth(ground_truth), read_content(ground_truth)
    annotations = [
        {**row, "iscrowd": 0, "is_group_of": bool(row["iscrowd"] or entry.get("is_group_of"))}
        for row, entry in zip(coco.dataset["annotations"], content["annotations"], strict=True)
    ]
    categories = [{"id": i, "name": str(i)} for i in coco.get_cat_ids()]
    grouped = hotcoco.COCO({"images": coco.dataset["images"], "categories": categories, "annotations": annotations})
    array = loadable(coco, results)
    run = hotcoco.COCOeval(grouped, grouped.load_res(array), "bbox", oid_style=True)
    run.params.max_dets = [max(1, len(array))]
    numbers = _run(run)
    per_class = _class_aps(numbers, category_names(coco))
    return FederatedMetrics(summary={"AP50": numbers["AP"]}, per_class=per_class, frequencies={})


def _run(run: Any) -> dict[str, float]:
    """Evaluate, and return the metrics by hotcoco's names, without its printed table and its warning of Open Images."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        run.run()
        return {name: float(value) for name, value in run.get_results(per_class=True).items()}


def _class_aps(numbers: Mapping[str, float], names: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Return the AP of each class. In `numbers`, the id of a class is its name, because names may be repeated."""
    return {name: numbers.get(f"AP/{category_id}", NOT_COMPUTED) for name, category_id in names}


def _ids(value: Any, default: list[int]) -> list[int]:
    return [i for i in value if isinstance(i, int)] if isinstance(value, list | tuple) else default


def _frequencies(categories: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return r, c or f for each category id."""
    ids = [int(entry["id"]) for entry in categories]
    if all(entry.get("frequency") in {"r", "c", "f"} for entry in categories):
        return {i: entry["frequency"] for i, entry in zip(ids, categories, strict=True)}
    images: dict[int, set[int]] = {i: set() for i in ids}
    for row in annotations:
        images[row["category_id"]].add(row["image_id"])
    return {i: "r" if len(of) <= RARE_TO else "c" if len(of) <= COMMON_TO else "f" for i, of in images.items()}


def with_federated_fields(ground_truth: dict[str, Any], source: Path) -> dict[str, Any]:
    """Return a ground truth with the fields of LVIS and Open Images of its COCO file; unchanged for other formats.

    Args:
        ground_truth: COCO dictionary with the ids of the file.
        source: annotation file.
    """
    if source.suffix.lower() != ".json" or not source.is_file():
        return ground_truth
    content = read_content(source)
    kept = {
        "images": ("neg_category_ids", "not_exhaustive_category_ids"),
        "categories": ("frequency",),
        "annotations": ("is_group_of",),
    }
    changed = dict(ground_truth)
    for section, names in kept.items():
        entries = content.get(section) if isinstance(content, dict) else None
        found = {
            entry.get("id"): {name: entry[name] for name in names if name in entry}
            for entry in entries or ()
            if isinstance(entry, dict) and isinstance(entry.get("id"), int)
        }
        changed[section] = [{**entry, **found.get(entry["id"], {})} for entry in ground_truth[section]]
    return changed
