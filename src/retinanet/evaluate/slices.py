"""Compute metrics of slices: classes, object sizes, and the images with a value of an attribute. Worst slice first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import hotcoco

from retinanet.evaluate.coco import COCO_MAX_DETECTIONS, NOT_COMPUTED, coco_eval, mean_of_computed
from retinanet.evaluate.ground_truth import category_names, load_ground_truth
from retinanet.evaluate.results import Results, loadable

if TYPE_CHECKING:
    from retinanet.evaluate.attributes import Attribute
    from retinanet.evaluate.ground_truth import GroundTruth

MIN_OBJECTS: Final = 30
"""A slice with fewer objects is not reliable: the standard error of a recall of 0.5 exceeds 0.09, sqrt(0.25 / 30)."""
MIN_IMAGES: Final = 10
"""A slice with fewer images is not reliable: objects of one image are often similar."""
COLUMN_TITLES: Final = ("slice", "images", "objects", "AP", "vs all", "AP50", "AR", "")
"""Columns of `slice_rows`."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Metrics of a part of the data; -1 without objects.

    Args:
        attribute: "class", "object size", or the name of an attribute of the images.
        value: value or range of the attribute.
        images: number of images; for classes and object sizes, the number of images with such objects.
        objects: number of objects, without crowd regions.
        AP: average precision, mean over IoU 0.50:0.95 and over the classes with objects in the slice.
        AP50: average precision at IoU 0.5.
        AR: recall, mean over IoU 0.50:0.95.
        difference: AP minus the AP of all data; None if one of the two is not computed.
    """

    attribute: str
    value: str
    images: int
    objects: int
    AP: float
    AP50: float
    AR: float
    difference: float | None

    @property
    def is_reliable(self) -> bool:
        """Whether the slice has `MIN_OBJECTS` objects and `MIN_IMAGES` images or more."""
        return self.objects >= MIN_OBJECTS and self.images >= MIN_IMAGES

    @property
    def label(self) -> str:
        """Name of the slice in tables."""
        return f"{self.attribute}: {self.value}"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        return {**dataclasses.asdict(self), "is_reliable": self.is_reliable}


def slice_metrics(
    ground_truth: GroundTruth,
    results: Results,
    attributes: Sequence[Attribute],
    *,
    max_detections: int = COCO_MAX_DETECTIONS,
) -> tuple[Slice, ...]:
    """Return the metrics of classes, object sizes and values of image attributes.

    Reliable slices come first, then slices with few images or objects, then slices without objects. Each of these is
    sorted by AP, lowest first.

    Args:
        ground_truth: see `evaluate_results`.
        results: see `evaluate_results`.
        attributes: image ids of each value of each attribute.
        max_detections: number of detections per image and class that count, those with the highest scores first.

    Raises:
        EvaluationError: see `evaluate_results`.
    """
    run = coco_eval(ground_truth, results, max_detections=max_detections)
    m = list(run.params.max_dets).index(max_detections)
    # Axes: IoU thresholds, recall levels, classes, areas; IoU thresholds, classes, areas.
    precision_TRKA, recall_TKA = run.eval["precision"][..., m], run.eval["recall"][..., m]
    objects = [row for row in run.coco_gt.dataset["annotations"] if not row["iscrowd"]]
    all_AP = mean_of_computed(precision_TRKA[..., 0])

    def add(attribute: str, value: str, images: int, count: int, **metrics: float) -> Slice:
        is_computed = NOT_COMPUTED not in (metrics["AP"], all_AP)
        difference = metrics["AP"] - all_AP if is_computed else None
        return Slice(attribute=attribute, value=value, images=images, objects=count, difference=difference, **metrics)

    def part(attribute: str, value: str, rows: list[dict[str, Any]], k: slice, a: int) -> Slice:
        metrics = {
            "AP": mean_of_computed(precision_TRKA[:, :, k, a]),
            "AP50": mean_of_computed(precision_TRKA[0, :, k, a]),  # the first IoU threshold is 0.5
            "AR": mean_of_computed(recall_TKA[:, k, a]),
        }
        return add(attribute, value, len({row["image_id"] for row in rows}), len(rows), **metrics)

    found = [
        part("class", name, [row for row in objects if row["category_id"] == category_id], slice(k, k + 1), 0)
        for k, (name, category_id) in enumerate(category_names(run.coco_gt))
    ]
    for a, (name, (low, high)) in enumerate(zip(run.params.area_rng_lbl, run.params.area_rng, strict=True)):
        if a:
            rows = [row for row in objects if low <= row["area"] <= high]
            found.append(part("object size", name, rows, slice(None), a))
    found = [row for row in found if row.objects]
    counts: dict[int, int] = dict.fromkeys(run.coco_gt.get_img_ids(), 0)
    for row in objects:
        counts[row["image_id"]] += 1
    for attribute, value, images, metrics in _image_slices(ground_truth, results, attributes, max_detections):
        found.append(add(attribute, value, len(images), sum(counts[i] for i in images), **metrics))
    return tuple(sorted(found, key=lambda row: (row.AP == NOT_COMPUTED, not row.is_reliable, row.AP)))


def _image_slices(
    ground_truth: GroundTruth, results: Results, attributes: Sequence[Attribute], max_detections: int
) -> list[tuple[str, str, Sequence[int], Mapping[str, float]]]:
    """Return the attribute, the value, the image ids, and AP, AP50 and AR of each value of each attribute."""
    values = [(one.name, value, images) for one in attributes for value, images in one.images.items()]
    if not values:
        return []
    coco = load_ground_truth(ground_truth)
    run = hotcoco.COCOeval(coco, coco.load_res(loadable(coco, results)), "bbox")
    run.params.max_dets = [max_detections]  # with one limit, hotcoco's AP and AR100 count this number of detections
    run.evaluate()
    sliced = run.slice_by({str(number): list(images) for number, (_, _, images) in enumerate(values)})
    names = {"AP": "AP", "AP50": "AP50", "AR": "AR100"}
    return [
        (*value, {name: float(sliced[str(number)][key]) for name, key in names.items()})
        for number, value in enumerate(values)
    ]


def slice_rows(slices: Sequence[Slice]) -> list[tuple[str | int | float | None, ...]]:
    """Return a row of a table for each slice, see `COLUMN_TITLES`. None stands for a metric without objects.

    The last cell is "few" for a slice that is not reliable.
    """

    def value(number: float) -> float | None:
        return None if number == NOT_COMPUTED else number

    return [
        (
            row.label,
            row.images,
            row.objects,
            value(row.AP),
            None if row.difference is None else f"{row.difference:+.3f}",
            value(row.AP50),
            value(row.AR),
            "" if row.is_reliable else "few",
        )
        for row in slices
    ]
