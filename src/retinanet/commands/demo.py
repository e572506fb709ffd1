"""`retinanet demo`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.commands.options import Flags
from retinanet.config import DemoConfig
from retinanet.files import write_atomically

if TYPE_CHECKING:
    from retinanet.data import DetectionData
    from retinanet.evaluate.coco import Metrics
    from retinanet.predict.detector import BaseDetector
    from retinanet.train import TrainResult

TRAINING: Final[dict[str, Any]] = {
    "preset": "small",
    "image_size": 256,
    "max_size": 320,
    "flip": 0.0,  # a mirrored digit is not a digit
    "batch_size": 4,
    "warmup_steps": 100,
    "lr": 1e-3,
    "ema": 0.99,
}
"""Training options of the demo that differ from the defaults of `retinanet train`."""
DRAWN_SCENES: Final = 12


def demo(*, options: Flags[DemoConfig] | None = None) -> None:
    """Train on generated scenes, evaluate, draw detections and write a report. Takes minutes on two cores, offline.

    `retinanet demo`
    """
    run_demo(options or DemoConfig())


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """Paths of the demo's report, checkpoint and drawn images, and the metrics on the held-out scenes."""

    report: Path
    model: Path
    drawn: Path
    metrics: Metrics


def run_demo(config: DemoConfig | None = None, **options: Any) -> DemoResult:
    """Make scenes, train, evaluate on held-out scenes, draw detections, write the report and print the paths.

    A second call with the same folder reuses the scenes and replaces the training run.

    Args:
        config: all options.
        options: the options by name, instead of `config`.

    Raises:
        DemoError: scikit-learn is missing, or the folder holds a run of another command.
        BackboneError: the backbone has no pretrained weights.
    """
    from retinanet.config import TrainConfig, resolve
    from retinanet.data.demo_scenes import MANIFEST, DemoError, make_scenes
    from retinanet.train import fit
    from retinanet.train.run_folder import RUN_FILES

    config = config or resolve(DemoConfig, options)
    output, seed = config.folder.output, config.random.seed
    runs = [name for name in RUN_FILES if (output / name).exists()]
    if runs and not (output / "scenes" / MANIFEST).exists():
        raise DemoError(
            f"{output} holds a training run of another command ({', '.join(runs)}): choose another folder with -o"
        )
    start = time.monotonic()
    print(f"scenes: {output / 'scenes'}", flush=True)
    scenes = make_scenes(
        output / "scenes", train=config.train_scenes, val=config.val_scenes, test=config.test_scenes, seed=seed
    )
    chosen = {"epochs": config.epochs, "workers": config.loading.workers, "device": config.hardware.device}
    places = {"train": scenes.train_json, "val": scenes.val_json, "output": output, "overwrite": True}
    trained = fit(resolve(TrainConfig, {**TRAINING, **chosen, **places, "seed": seed}))
    result, image = _evaluate(trained, scenes.test_json, config)
    print(
        f"held-out scenes: AP {result.metrics.AP:.3f}, AP50 {result.metrics.AP50:.3f}; "
        f"total time {time.monotonic() - start:.0f} s\n"
        f"report:     {result.report}\ndetections: {result.drawn}\nmodel:      {result.model}\n"
        f"next:       retinanet predict {result.model} {image} -o found",
        flush=True,
    )
    return result


def _evaluate(trained: TrainResult, test_json: Path, config: DemoConfig) -> tuple[DemoResult, Path]:
    """Evaluate on the held-out scenes, draw the first scenes, write the report. Return the results and one scene."""
    from retinanet.analysis.miss_map import miss_map
    from retinanet.analysis.miss_remedies import ModelFiles
    from retinanet.analysis.next_steps import check_errors, tune_thresholds
    from retinanet.analysis.result_errors import errors_from_results
    from retinanet.evaluate.coco import evaluate_results
    from retinanet.evaluate.curves import precision_recall
    from retinanet.evaluate.per_image import best_threshold, items_from_results
    from retinanet.predict.files import predict_files
    from retinanet.predict.loading import load
    from retinanet.report import training_report

    output, seed = config.folder.output, config.random.seed
    detector = load(trained.best, config.hardware.device)
    data, results = _detect(detector, test_json)
    metrics = evaluate_results(test_json, results)
    write_atomically(output / "test_results.json", json.dumps(results))
    write_atomically(output / "test_evaluation.json", json.dumps(metrics.to_json()))
    images = [record.path for record in data.records[:DRAWN_SCENES]]
    items = items_from_results(data, results)
    threshold = best_threshold(items)
    errors = errors_from_results(data, items, threshold=threshold)
    found = predict_files(detector, images, output=output / "detections", draw_threshold=threshold, overwrite=True)
    report = training_report(
        output,
        title="The demo: handwritten digits on photographs",
        gallery=items,
        classes=data.classes,
        metrics=metrics.to_json(),
        curves=precision_recall(test_json, results),
        images="held-out scenes",
        seconds=trained.seconds,
        command=f"retinanet demo -o {output} --epochs {config.epochs} --seed {seed}",
        seed=seed,
        next_steps=[
            check_errors(trained.best, test_json, report=output / "check.html"),
            tune_thresholds(trained.best, trained.config.val),
        ],
        misses=miss_map(errors, items, ModelFiles(model=trained.best, data=test_json, run=trained.config)),
        first_images=trained.first_images,
        augment=trained.config.augmentation,
    )
    drawn = found.drawn or output / "detections"
    return DemoResult(report=report, model=trained.best, drawn=drawn, metrics=metrics), images[0]


def _detect(detector: BaseDetector, annotations: Path) -> tuple[DetectionData, list[dict[str, Any]]]:
    """Return the dataset, and the detections on its images as COCO results."""
    from retinanet.data import load
    from retinanet.images import ImageError
    from retinanet.predict.coco_results import detections_to_coco

    data = load(annotations, workers=1)
    results: list[dict[str, Any]] = []
    found = detector.predict_batches([record.path for record in data.records])
    for record, (_, detections) in zip(data.records, found, strict=True):
        if isinstance(detections, ImageError):
            raise detections
        results += detections_to_coco(detections, image_id=record.image_id, category_ids=data.category_ids)
    return data, results
