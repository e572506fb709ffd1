"""Evaluate a detector, or a file with its results, on a dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.config import BatchConfig, EvaluateConfig, LoadingConfig, resolve
from retinanet.data import eval_batches, load
from retinanet.errors import did_you_mean, list_names
from retinanet.evaluate.attributes import image_attributes
from retinanet.evaluate.coco import COCO_MAX_DETECTIONS, Metrics, evaluate_results
from retinanet.evaluate.detection_limit import limit_notes
from retinanet.evaluate.further_metrics import FurtherMetrics, further_metrics
from retinanet.evaluate.ground_truth import EvaluationError, GroundTruth
from retinanet.evaluate.results_file import read_results
from retinanet.evaluate.slices import Slice, slice_metrics
from retinanet.files import STDOUT, require_writable, write_atomically
from retinanet.predict.coco_results import detections_to_array, detections_to_coco
from retinanet.predict.loading import load_with_options
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    from retinanet.config import TileConfig
    from retinanet.data import DetectionData
    from retinanet.evaluate.attributes import Attribute
    from retinanet.predict.detector import BaseDetector
    from retinanet.types import ArrayDetections


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of an evaluation.

    Args:
        metrics: COCO metrics.
        results: detections as COCO results, with the image and category ids of the data.
        ground_truth: COCO dictionary of the ground truth.
        notes: remarks for the user, such as classes without a match and annotations left out.
        further: selected metrics in addition to COCO's.
        slices: metrics of classes, object sizes and image attributes, worst first; empty without selected attributes.
    """

    metrics: Metrics
    results: list[dict[str, Any]]
    ground_truth: GroundTruth
    notes: tuple[str, ...]
    further: FurtherMetrics = field(default_factory=FurtherMetrics)
    slices: tuple[Slice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all metrics and slices as plain values for JSON."""
        slices = {"slices": [row.to_json() for row in self.slices]} if self.slices else {}
        return {**self.metrics.to_json(), **self.further.to_json(), **slices}


def evaluate(
    model: Path | str,
    config: EvaluateConfig | None = None,
    *,
    progress: ProgressBar = no_progress_bar,
    **options: Any,
) -> Evaluation:
    """Evaluate a checkpoint or a COCO results file: `evaluate("best.ckpt", data="test.json")`.

    A results file (.json) needs no images. Its ground truth is read and checked in the same way as for a model.
    The averages include the classes of the data, which are matched with the model's classes by name. Objects of a class
    that the model lacks count as missed. Detections of a class that the data lacks are left out. `notes` names such
    classes.

    Args:
        model: path of a checkpoint, an exported model, or a results file.
        config: all options as an object; give either `config` or `options`.
        options: options by name, as the flags of `retinanet evaluate`.
        progress: function that opens a progress bar.

    Raises:
        EvaluationError: the results do not fit the data, or model and data have no class in common.
        DataError: the data has faults.
        UserError: an output file cannot be written. This is checked before the evaluation.
    """
    config = config or resolve(EvaluateConfig, options)
    require_writable(config.files.json, config.files.report, config.results)
    model = Path(model)
    if model.suffix.lower() == ".json":
        evaluation = _evaluate_file(model, config)
    else:
        evaluation = _evaluate_checkpoint(model, config, progress)
    if config.files.json is not None and config.files.json != STDOUT:  # the command prints the JSON for STDOUT
        document = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False)
        write_atomically(config.files.json, document + "\n")
    if config.results is not None:
        write_atomically(config.results, json.dumps(evaluation.results) + "\n")
    return evaluation


def _evaluate_file(path: Path, config: EvaluateConfig) -> Evaluation:
    data = _load(config, open_images=False)
    results, notes = read_results(path, data, config)
    limit = config.max_detections or COCO_MAX_DETECTIONS
    attributes, attribute_notes = image_attributes(data, config)
    metrics = evaluate_results(data.to_coco(), results, max_detections=limit)
    notes = (*_data_notes(data), *notes, *limit_notes(data, limit), *attribute_notes)
    return _complete(data, metrics, results, notes, attributes, config)


def _evaluate_checkpoint(path: Path, config: EvaluateConfig, progress: ProgressBar) -> Evaluation:
    detector = load_with_options(path, config)
    data = _load(config)
    _, notes = match_classes(detector.classes, data.classes)
    attributes, attribute_notes = image_attributes(data, config)  # errors of the CSV file come before the evaluation
    metrics, results = evaluate_model(
        detector,
        data,
        batch_size=config.batch.batch_size,
        workers=config.loading.workers,
        tiling=config.tiling,
        tta=config.inference.tta,
        max_detections=config.max_detections,
        progress=progress,
    )
    model_limit = detector.postprocess_config.max_detections
    notes = (
        *_data_notes(data),
        *notes,
        *limit_notes(data, metrics.max_detections, max(model_limit, config.max_detections or 0)),
        *attribute_notes,
    )
    return _complete(data, metrics, results, notes, attributes, config)


def _complete(
    data: DetectionData,
    metrics: Metrics,
    results: list[dict[str, Any]],
    notes: tuple[str, ...],
    attributes: Sequence[Attribute],
    config: EvaluateConfig,
) -> Evaluation:
    """Return the evaluation with the further metrics and the slices that the options select."""
    truth = data.to_coco()
    slices: tuple[Slice, ...] = ()
    if config.slices is not None or config.slice_by:
        slices = slice_metrics(truth, results, attributes, max_detections=metrics.max_detections)
    further = further_metrics(data, results, config.metrics)
    return Evaluation(metrics=metrics, results=results, ground_truth=truth, notes=notes, further=further, slices=slices)


def _load(config: EvaluateConfig, *, open_images: bool = True) -> DetectionData:
    return load(
        config.data,
        images=config.dataset.selection.images,
        skip_invalid=config.dataset.selection.skip_invalid,
        workers=max(1, config.loading.workers),
        open_images=open_images,
        split="val",
        **config.dataset.reading,
    )


def evaluate_model(
    detector: BaseDetector,
    data: DetectionData,
    *,
    batch_size: int = BatchConfig.batch_size,
    workers: int = LoadingConfig.workers,
    tiling: TileConfig | None = None,
    tta: bool = False,
    max_detections: int | None = None,
    progress: ProgressBar = no_progress_bar,
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Return the metrics of a detector on a dataset, and the detections as COCO results in the order of the data.

    Args:
        detector: detector whose classes are matched with those of the data by name, see `match_classes`.
        data: images and objects.
        batch_size: number of images per batch; images of similar shape are batched together.
        workers: number of threads that decode images.
        tiling: tile options, as for `retinanet predict --tile`; None evaluates whole images.
        tta: test-time augmentation: detect also in flipped and resized copies of each image.
        max_detections: number of detections per image and class that the metrics count. The detector's own limit of
            detections per image is raised to this number. None: 100, as COCO, and the detector's own limit.
        progress: function that opens a progress bar.

    Raises:
        ImageError: an image cannot be decoded. `data.load` reports such images before the evaluation.
        EvaluationError: detector and data have no class in common.
    """

    columns, _ = match_classes(detector.classes, data.classes)
    category_ids = [-1 if k is None else data.category_ids[k] for k in columns]
    order = eval_batches(data, batch_size)
    batches = ([data.records[i].path for i in batch] for batch in order)
    stream = detector.stream(batches, workers=workers, tiling=tiling, tta=tta, min_limit=max_detections or 0)
    by_image: dict[int, ArrayDetections] = {}
    with progress("evaluate", len(data.records)) as advance:
        for i, prediction in zip((i for batch in order for i in batch), stream, strict=True):
            by_image[i] = prediction.result()
            advance()
    in_order = [(data.records[i].image_id, by_image[i]) for i in sorted(by_image)]
    metrics = evaluate_results(
        data.to_coco(),
        detections_to_array(in_order, category_ids=category_ids),
        max_detections=max_detections or COCO_MAX_DETECTIONS,
    )
    results = [
        row
        for image_id, detections in in_order
        for row in detections_to_coco(detections, image_id=image_id, category_ids=category_ids)
        if row["category_id"] != -1
    ]
    return metrics, results


def match_classes(model: Sequence[str], data: Sequence[str]) -> tuple[list[int | None], tuple[str, ...]]:
    """Match the model's classes with the data's classes by name. A repeated name is matched in order.

    Args:
        model: class names of the model.
        data: class names of the data.

    Returns:
        the index of each model class in `data`, None for a class that the data lacks; notes about unmatched classes.

    Raises:
        EvaluationError: model and data have no class in common.
    """
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(data):
        indices.setdefault(name, []).append(index)
    columns: list[int | None] = []
    for name in model:
        unmatched = indices.get(name)
        columns.append(unmatched.pop(0) if unmatched else None)
    if all(column is None for column in columns):
        raise EvaluationError(
            f"the model and the data share no class: the model has {list_names(model)}; the data has "
            f"{list_names(data)}: rename classes of the data with --rename old=new"
        )
    missed = [data[index] for index in range(len(data)) if index not in columns]
    dropped = [name for name, column in zip(model, columns, strict=True) if column is None]
    notes = []
    if missed:
        near = did_you_mean(missed[0], dropped)
        notes.append(f"the model does not have {list_names(missed)}: objects of these classes count as missed{near}")
    if dropped:
        notes.append(f"the data does not have {list_names(dropped)}: detections of these classes are left out")
    return columns, tuple(notes)


def _data_notes(data: DetectionData) -> tuple[str, ...]:
    """Return notes about the reading of the data and about faults that were left out."""
    if not data.faults:
        return data.notes
    return (*data.notes, f"{len(data.faults):,} faults in the data were left out: `retinanet check` lists each fault")
