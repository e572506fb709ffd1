"""Data of a training run, and the options that depend on the data: bit depth, anchors, alphas of the classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from retinanet.analysis.auto_anchors import ANCHOR_OPTIONS, as_needed_sentence, fit_anchors, sampled_coverage, why_kept
from retinanet.analysis.class_balance import class_alphas
from retinanet.config import TrainConfig, given_options, with_options
from retinanet.data import DetectionData, cut_into_tiles, load_train_and_val
from retinanet.errors import ConfigError
from retinanet.pixel_values import FULL_DEPTH, ValueRange
from retinanet.train.output_files import report_progress


def load_run_data(config: TrainConfig) -> tuple[TrainConfig, DetectionData, DetectionData]:
    """Return the config with the bit depth of the images, the training data (cut into tiles if the options say so) and
    the validation data. Report both datasets.
    """
    train_data, val_data = load_train_and_val(config)
    for name, data in (("train", train_data), ("val", val_data)):
        for note in data.notes:
            report_progress(f"{name}: {note}")
        left_out = f", {len(data.faults)} faults left out (--skip-invalid)" if data.faults else ""
        report_progress(
            f"{name}: {len(data.records)} images, {data.num_objects} objects, {len(data.classes)} classes{left_out}"
        )
    config = _with_bit_depth(config, ValueRange.join((train_data.value_range, val_data.value_range)))
    tiling = config.tiling
    if tiling.tile:
        train_data = cut_into_tiles(train_data, tiling).data
        report_progress(f"train: {len(train_data.records)} tiles and whole images; tile size {tiling.tile} pixels")
    return config, train_data, val_data


def with_fitted_anchors(data: DetectionData, config: TrainConfig) -> tuple[TrainConfig, dict[str, Any]]:
    """Return the config with the anchors that `anchors` asks for, and the content of anchors.json.

    The options then hold the numbers of the anchors, so that config.yaml repeats the training run with the same
    anchors. The content is empty if the anchors are given.
    """
    mode = config.fitted.anchors
    if mode == "given":
        return config, {}
    settings: dict[str, Any] = {"model_config": config.model, "match_config": config.matching}
    settings["image_config"] = config.image
    measured = sampled_coverage(data, **settings)
    content: dict[str, Any] = {"anchors": mode, "objects": measured.objects}
    content |= {"share_before": measured.share, "share_after": measured.share}
    kept = why_kept(config, measured) if mode == "as_needed" else None
    fitted = None
    if kept is None:
        fitted = fit_anchors(
            data,
            **settings,
            augment_config=config.augmentation,
            keep_levels="levels" in given_options(config),
            before=measured,
            seed=config.random.seed,
        )
        if fitted.changed and (mode == "auto" or fitted.needed):
            config = with_options(config, **{name: getattr(fitted.model_config, name) for name in ANCHOR_OPTIONS})
            content["share_after"] = fitted.after.share
    if mode == "as_needed":
        content["sentence"] = f"anchors as needed: {as_needed_sentence(kept, fitted)}"
    elif fitted is not None:
        content["sentence"] = f"anchors fitted to the training data: {fitted.sentence()}"
    report_progress(content["sentence"])
    return with_options(config, anchors="given"), content


def with_class_alphas(data: DetectionData, config: TrainConfig) -> TrainConfig:
    """Return the config with the alphas of the classes, if they depend on the data (`balance_classes`).

    The options then hold the computed numbers, so that config.yaml repeats the training run with the same numbers.
    """
    if config.fitted.balance_classes:
        labels = np.concatenate([record.labels_G[~record.crowd_G] for record in data.records])
        counts = np.bincount(labels, minlength=len(data.classes)).tolist()
        alphas = class_alphas(counts, alpha=config.loss.alpha)
        by_class = ", ".join(f"{name} {alpha:.2f}" for name, alpha in zip(data.classes, alphas, strict=True))
        report_progress(f"alpha by class: {by_class}")
        config = with_options(config, class_alpha=alphas, balance_classes=False)
    if config.loss.class_alpha and len(config.loss.class_alpha) != len(data.classes):
        raise ConfigError(
            f"class_alpha needs one value for each of the {len(data.classes)} classes, found "
            f"{len(config.loss.class_alpha)}: {config.loss.class_alpha}. Set one value per class, in the order of the "
            "class ids"
        )
    return config


def _with_bit_depth(config: TrainConfig, value_range: ValueRange | None) -> TrainConfig:
    """Return the config with the number of bits that 16-bit images use, if there are such images and it is auto."""
    if value_range is None:
        return config
    given = config.image.bit_depth
    depth = given or value_range.bit_depth
    if depth < FULL_DEPTH:
        other = "--bit-depth sets another number" if not given else "--bit-depth sets this number"
        report_progress(f"{value_range.describe()}. Value {2**depth - 1:,} is read as white ({other})")
    if value_range.largest >= 2**depth:
        report_progress(f"values above {2**depth - 1:,} become white, and their differences are lost")
    return with_options(config, bit_depth=depth)
