"""Calibrate the scores of a checkpoint, and choose its score thresholds for an aim on images that it has not seen.

Shape suffixes: D detections, I images, K classes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import expit

from retinanet.analysis.calibration import FOLDS, ClassCalibration, calibrate_class, calibrated, score_logits
from retinanet.analysis.score_thresholds import Aim, Choice, UnsupportedAimError, choose, measure
from retinanet.analysis.scored_detections import Reliability, ScoredDetections, measure_reliability, scored_detections
from retinanet.analysis.tuning_result import TuningResult
from retinanet.checkpoint.loading import load_checkpoint
from retinanet.checkpoint.saving import save_model
from retinanet.checkpoint.tuned_thresholds import TunedThresholds
from retinanet.config import TuneConfig, resolve, with_options
from retinanet.data import load
from retinanet.errors import UserError
from retinanet.evaluate.evaluation import evaluate_model, match_classes
from retinanet.files import require_writable
from retinanet.model import rescale_logits
from retinanet.predict.torch_detector import Detector, pick_device
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData
    from retinanet.evaluate import Metrics

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]
    Bools = npt.NDArray[np.bool_]

LOWEST_SCORE: Final = 0.01
"""Detections with lower scores are not considered, unless the model's own threshold is lower."""
PROMISED: Final = ("recall", "precision")
"""Aims that hold on new images."""


def tune(
    model: Path | str,
    data: Path | str,
    config: TuneConfig | None = None,
    *,
    progress: ProgressBar = no_progress_bar,
    **options: Any,
) -> TuningResult:
    """Write a checkpoint with calibrated scores and tuned thresholds: `tune("best.ckpt", "val.json", output="t.ckpt")`.

    Args:
        model: checkpoint.
        data: images and objects that the model was not trained on.
        config: all options as an object; give either `config` or `options`.
        progress: function that opens a progress bar.
        options: options by name, as the flags of `retinanet tune`.

    Raises:
        UnsupportedAimError: the data cannot support the aim. Nothing is written.
        UserError: the output exists, or the model, the data or an option is invalid.
    """
    config = config or resolve(TuneConfig, options)
    model, data = Path(model), Path(data)
    aim = Aim.parse(config.aim)
    if config.output.exists() and not config.existing.overwrite:
        raise UserError(f"{config.output} exists already: give --overwrite to replace it, or another name")
    require_writable(config.output, config.files.json, config.files.report)
    loaded = load_checkpoint(model)
    images = load(
        data,
        images=config.dataset.selection.images,
        skip_invalid=config.dataset.selection.skip_invalid,
        workers=max(1, config.loading.workers),
        split="val",
        **config.dataset.reading,
    )
    columns, notes = match_classes(loaded.classes, images.classes)
    if Path(str(loaded.train_config.get("train", ""))).absolute() == data.absolute():
        notes = (*notes, "the model was trained on these images: its scores are too high here, and no promise holds")
    own = loaded.postprocess_config.score_threshold
    lowest = min(LOWEST_SCORE, own)
    before, results = _detect(loaded, images, config, lowest, progress)
    found = scored_detections(images, results, columns)
    calibrations: tuple[ClassCalibration, ...] = ()
    reliability = None
    if config.calibrate:
        calibrations, reliability = _calibrate(images, results, found, columns, own, config.random.seed)
        lowest, own = (min(calibrated(value, calibration) for calibration in calibrations) for value in (lowest, own))
        factors, shifts = ([getattr(c, name) for c in calibrations] for name in ("factor", "shift"))
        rescale_logits(loaded.model.class_head, factors, shifts)
        # The limits on candidates and detections take the highest scores of all classes, which have changed.
        after, results = _detect(loaded, images, config, lowest, progress)
        found = scored_detections(images, results, columns)
    else:
        after = before
    thresholds = _thresholds(found, aim, config, loaded.classes, calibrations, lowest)
    tuned = TunedThresholds(
        thresholds=thresholds,
        aim=str(aim),
        per_class=config.per_class,
        confidence=config.confidence,
        images=len(images.records),
        sentence=_promise(aim, config, len(images.records), int(found.objects_IK.sum())),
    )
    by_class = tuple(
        measure(found.outcomes(k), thresholds[k]) if found.objects_IK[:, k].any() else None
        for k in range(len(thresholds))
    )
    # A graph whose caller gives no thresholds applies both: its score threshold must not drop what tuning keeps.
    loaded = _with_score_threshold(loaded, min(own, *thresholds))
    save_model(dataclasses.replace(loaded, tuned=tuned), config.output)
    return TuningResult(
        classes=loaded.classes,
        tuned=tuned,
        calibrations=calibrations,
        overall=_overall(found, thresholds),
        by_class=by_class,
        reliability=reliability,
        metrics=(before, after),
        notes=(*images.notes, *notes),
    )


def _detect(
    loaded: LoadedModel, data: DetectionData, config: TuneConfig, lowest: float, progress: ProgressBar
) -> tuple[Metrics, list[dict[str, Any]]]:
    """Return the metrics and detections of a model, with scores down to `lowest`."""
    info = _with_score_threshold(loaded, lowest)
    return evaluate_model(
        Detector(model=loaded.model, info=info, device=pick_device(config.hardware.device)),
        data,
        batch_size=config.batch.batch_size,
        workers=config.loading.workers,
        progress=progress,
    )


def _calibrate(
    data: DetectionData,
    results: list[dict[str, Any]],
    found: ScoredDetections,
    columns: list[int | None],
    own: float,
    seed: int,
) -> tuple[tuple[ClassCalibration, ...], tuple[Reliability, Reliability]]:
    """Return the calibration of each class, and the reliability before, and after on held-out images.

    The reliability is that of the detections above the model's own score threshold.
    """
    images = len(data.records)
    fold_I = np.random.default_rng(seed).permutation(np.arange(images) % FOLDS)
    fold_D = fold_I[found.image_D]
    K = len(columns)

    def fit(kept_D: Bools) -> tuple[ClassCalibration, ...]:
        return tuple(
            calibrate_class(found.scores_D[own_D], found.correct_D[own_D], fold_D[own_D])
            for own_D in (kept_D & (found.labels_D == k) for k in range(K))
        )

    index = {record.image_id: i for i, record in enumerate(data.records)}
    label_of = {data.category_ids[column]: k for k, column in enumerate(columns) if column is not None}
    kept = [row for row in results if row["score"] > own]
    held_out: dict[int, tuple[ClassCalibration, ...]] = {
        fold: fit(fold_D != fold) for fold in range(min(FOLDS, images))
    }
    mapped = []
    for row in kept:
        calibrations = held_out[int(fold_I[index[row["image_id"]]])]
        mapped.append({**row, "score": calibrated(row["score"], calibrations[label_of[row["category_id"]]])})
    truth = data.to_coco()
    every_D = np.ones(len(found.scores_D), dtype=bool)
    return fit(every_D), (measure_reliability(truth, kept), measure_reliability(truth, mapped))


def _with_score_threshold(loaded: LoadedModel, value: float) -> LoadedModel:
    """Return the model with another score threshold, which a saved checkpoint holds, too."""
    return dataclasses.replace(
        loaded,
        postprocess_config=with_options(loaded.postprocess_config, score_threshold=value),
        train_config={**loaded.train_config, "score_threshold": value},
    )


def _thresholds(
    found: ScoredDetections,
    aim: Aim,
    config: TuneConfig,
    classes: tuple[str, ...],
    calibrations: tuple[ClassCalibration, ...],
    lowest: float,
) -> tuple[float, ...]:
    """Return the threshold of each class.

    The bounds of a promise require scores that do not depend on the outcomes in these images. A threshold of one class
    is the same cut for every calibration, because calibration keeps the order. A threshold of all classes is therefore
    one cut of the scores before calibration, which gives each class another calibrated value.
    """
    K = len(classes)
    if config.per_class:
        chosen, faults, needs = [], [], []
        for k, name in enumerate(classes):
            try:
                chosen.append(choose(found.outcomes(k), aim, confidence=config.confidence).threshold)
            except UnsupportedAimError as error:
                faults.append(f"{name}: {error}")
                needs.append(error.images)
        if faults:
            count = None if None in needs else max(number for number in needs if number is not None)
            what = f"the data cannot support the aim {aim} for {len(faults)} of {K} classes"
            raise UnsupportedAimError("\n  ".join((what, *faults)), count)
        return tuple(max(threshold, lowest) for threshold in chosen)
    if aim.kind not in PROMISED or not calibrations:
        threshold = choose(found.outcomes(), aim, confidence=config.confidence).threshold
        return (max(threshold, lowest),) * K
    factor_K, shift_K = (np.array([getattr(c, name) for c in calibrations]) for name in ("factor", "shift"))
    raw_D = expit((score_logits(found.scores_D) - shift_K[found.labels_D]) / factor_K[found.labels_D])
    raw = dataclasses.replace(found, scores_D=raw_D)
    threshold = choose(raw.outcomes(), aim, confidence=config.confidence).threshold
    return tuple(max(calibrated(threshold, calibration), lowest) for calibration in calibrations)


def _overall(found: ScoredDetections, thresholds: tuple[float, ...]) -> Choice:
    """Return the recall and precision of all classes at their thresholds."""
    kept_D = found.scores_D > np.array(thresholds)[found.labels_D]
    return measure(dataclasses.replace(found, scores_D=kept_D.astype(np.float64)).outcomes(), 0.5)


def _promise(aim: Aim, config: TuneConfig, images: int, objects: int) -> str:
    """Return what the thresholds promise for new images."""
    of = "of each class" if config.per_class else "of all classes together"
    source = f"chosen on {images:,} images with {objects:,} objects"
    if aim.kind == "recall":
        return (
            f"Recall {of} is expected to be at least {aim.value:g} on new images of this kind ({source}). A set of few "
            "images can have less by chance."
        )
    if aim.kind == "precision":
        return (
            f"Precision {of} is at least {aim.value:g} on new images of this kind, with probability "
            f"{config.confidence:g} ({source}). A set of few images can have less by chance."
        )
    if aim.kind == "f1":
        return f"The thresholds give the highest F1 {of} ({source}). They promise nothing for new images."
    return (
        f"The thresholds give the lowest cost {of}, if a missed object costs {aim.value:g} times as much as a false "
        f"detection ({source}). They promise nothing for new images."
    )
