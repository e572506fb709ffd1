"""A detector, or a file of its results, against a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.config import BatchConfig, EvaluateConfig, LoadingConfig, resolve
from retinanet.data import eval_batches, load, read
from retinanet.errors import did_you_mean, list_names
from retinanet.evaluate.coco import (
    EvaluationError,
    GroundTruth,
    Metrics,
    check_results,
    evaluate_results,
    load_ground_truth,
)
from retinanet.files import write_atomically
from retinanet.predict.coco_results import detections_to_array, detections_to_coco
from retinanet.predict.loading import load as load_detector
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    from retinanet.config import TileConfig
    from retinanet.data import DetectionData
    from retinanet.predict.detector import BaseDetector
    from retinanet.types import ArrayDetections


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    Args:
        metrics: the numbers.
        results: the detections as COCO results, by the data's ids.
        ground_truth: what they were compared with.
        notes: what the user should know of the comparison, a sentence each.
    """

    metrics: Metrics
    results: list[dict[str, Any]]
    ground_truth: GroundTruth
    notes: tuple[str, ...]


def evaluate(
    model: Path | str,
    config: EvaluateConfig | None = None,
    *,
    progress: ProgressBar = no_progress_bar,
    **options: Any,
) -> Evaluation:
    """Evaluate a checkpoint, or a COCO results file: `evaluate("best.ckpt", data="test.json")`.

    For a results file (.json) no image is looked for. A COCO .json as `data` goes to the evaluator as it stands.
    The averages are over the data's classes: objects of a class that the model does not know count as missed, and
    detections of a class that the data does not have are left out; `notes` says so. Classes are compared by name.

    Args:
        model: checkpoint or results.
        config: all options at once,
        options: or by name, as the flags of `retinanet evaluate`.
        progress: opens a progress bar.

    Raises:
        EvaluationError: results that do not fit the data, or a model that shares no class with it.
        DataError: faults in the data.
    """
    config = config or resolve(EvaluateConfig, options)
    model = Path(model)
    if model.suffix.lower() == ".json":
        found = _evaluate_file(model, config)
    else:
        found = _evaluate_checkpoint(model, config, progress)
    if config.files.json is not None and str(config.files.json) != "-":  # the command prints it for `-`
        write_atomically(config.files.json, json.dumps(found.metrics.to_json(), indent=2, ensure_ascii=False) + "\n")
    if config.results is not None:
        write_atomically(config.results, json.dumps(found.results) + "\n")
    return found


def _evaluate_file(path: Path, config: EvaluateConfig) -> Evaluation:
    notes: tuple[str, ...] = ()
    chosen = config.dataset.selection
    plain = config.dataset.format in {None, "coco"} and not (chosen.classes or chosen.ignore_classes or chosen.rename)
    if config.data.suffix.lower() == ".json" and plain:
        ground_truth: GroundTruth = config.data
    else:
        data = read(config.data, images=config.dataset.selection.images, split="val", **config.dataset.reading)
        ground_truth, notes = data.to_coco(), _left_out(data)
    results = check_results(load_ground_truth(ground_truth), path)
    metrics = evaluate_results(ground_truth, results)
    return Evaluation(metrics=metrics, results=results, ground_truth=ground_truth, notes=notes)


def _evaluate_checkpoint(path: Path, config: EvaluateConfig, progress: ProgressBar) -> Evaluation:
    detector = load_detector(path, config.hardware.device, config.inference.precision)
    data = load(
        config.data,
        images=config.dataset.selection.images,
        skip_invalid=config.dataset.selection.skip_invalid,
        workers=max(1, config.loading.workers),
        split="val",
        **config.dataset.reading,
    )
    _, notes = match_classes(detector.classes, data.classes)
    metrics, results = evaluate_model(
        detector,
        data,
        batch_size=config.batch.batch_size,
        workers=config.loading.workers,
        tiling=config.tiling,
        tta=config.inference.tta,
        progress=progress,
    )
    return Evaluation(metrics=metrics, results=results, ground_truth=data.to_coco(), notes=(*_left_out(data), *notes))


def evaluate_model(
    detector: BaseDetector,
    data: DetectionData,
    *,
    batch_size: int = BatchConfig.batch_size,
    workers: int = LoadingConfig.workers,
    tiling: TileConfig | None = None,
    tta: bool = False,
    progress: ProgressBar = no_progress_bar,
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Return the metrics of a detector on a dataset, and its detections as COCO results in the order of the data.

    Args:
        detector: its classes are found in the data by name, see `match_classes`.
        data: images and objects.
        batch_size: images at once; images of like shape go together.
        workers: threads that load images ahead of the network.
        tiling: cut the images into tiles, as `retinanet predict --tile` does.
        tta: look at the images flipped and at other sizes too.
        progress: opens a progress bar.

    Raises:
        ImageError: an image that does not decode. `data.load` finds these beforehand.
    """

    columns, _ = match_classes(detector.classes, data.classes)
    category_ids = [-1 if k is None else data.category_ids[k] for k in columns]
    order = eval_batches(data, batch_size)
    batches = ([data.records[i].path for i in batch] for batch in order)
    stream = detector.stream(batches, workers=workers, tiling=tiling, tta=tta)
    by_image: dict[int, ArrayDetections] = {}
    with progress("evaluate", len(data.records)) as advance:
        for i, found in zip((i for batch in order for i in batch), stream, strict=True):
            by_image[i] = found.result()
            advance()
    in_order = [(data.records[i].image_id, by_image[i]) for i in sorted(by_image)]
    metrics = evaluate_results(data.to_coco(), detections_to_array(in_order, category_ids=category_ids))
    results = [
        row
        for image_id, detections in in_order
        for row in detections_to_coco(detections, image_id=image_id, category_ids=category_ids)
        if row["category_id"] != -1
    ]
    return metrics, results


def match_classes(model: Sequence[str], data: Sequence[str]) -> tuple[list[int | None], tuple[str, ...]]:
    """Return each model class's place among the data's, by name (None: not there), and in words what is unmatched.

    A name that repeats is matched in order. Raises `EvaluationError` where not one name is shared.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(data):
        places.setdefault(name, []).append(place)
    columns: list[int | None] = []
    for name in model:
        free = places.get(name)
        columns.append(free.pop(0) if free else None)
    if all(column is None for column in columns):
        raise EvaluationError(
            f"the model and the data share no class: the model has {list_names(model)}; the data has {list_names(data)}"
        )
    missed = [data[place] for place in range(len(data)) if place not in columns]
    dropped = [name for name, column in zip(model, columns, strict=True) if column is None]
    notes = []
    if missed:
        near = did_you_mean(missed[0], dropped)
        notes.append(f"the model does not know {list_names(missed)}: these objects count as missed{near}")
    if dropped:
        notes.append(f"the data does not have {list_names(dropped)}: detections of these are left out")
    return columns, tuple(notes)


def _left_out(data: DetectionData) -> tuple[str, ...]:
    """Say how the data was read, and what of it was faulty and so is not in the numbers."""
    if not data.faults:
        return data.notes
    return (*data.notes, f"{len(data.faults):,} faults in the data, left out: `retinanet check` lists them")
