"""Ranges and choices from annotations, and the rules between options of the sections."""

import math

import pytest

from retinanet.config import (
    AugmentConfig,
    BatchConfig,
    ExportConfig,
    ImageConfig,
    LoadingConfig,
    LossConfig,
    MatchConfig,
    ModelConfig,
    OptimiserConfig,
    PostprocessConfig,
    PredictConfig,
    RandomConfig,
    ScheduleConfig,
    ServeConfig,
    SplitConfig,
    StudyConfig,
    TileConfig,
    TrainConfig,
    options_of,
    resolve,
)
from retinanet.config.validation import Limits, read_hint
from retinanet.errors import ConfigError


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        (RandomConfig, {"seed": 2**32}, "seed must be between 0 and 4294967295, found 4294967296"),
        (ScheduleConfig, {"epochs": -1}, "epochs must be above 0, found -1"),
        (ScheduleConfig, {"max_steps": 0}, "max_steps must be above 0, or -1 for no limit, found 0"),
        (OptimiserConfig, {"ema": 1.0}, "ema must be 0 or more and below 1, found 1.0"),
        (OptimiserConfig, {"optimizer": "sdg"}, "optimizer must be one of sgd, adamw, found 'sdg'. Did you mean 'sgd'"),
        (LossConfig, {"loss": "foca"}, "Did you mean 'focal'"),
        (LossConfig, {"alpha": 1.5}, "alpha must be between 0 and 1, found 1.5"),
        (LossConfig, {"gamma": -1}, "gamma must be 0 or more, found -1"),
        (LossConfig, {"class_alpha": (0.5, 2)}, "class_alpha must hold numbers between 0 and 1, found"),
        (MatchConfig, {"negative_iou": 0.6}, "negative_iou must be at most positive_iou \\(0.5\\), found 0.6"),
        (ModelConfig, {"anchor_scales": ()}, "anchor_scales must hold one or more numbers above 0, found none"),
        (ModelConfig, {"anchor_ratios": (1.0, 0.0)}, "anchor_ratios must hold one or more numbers above 0, found"),
        (ModelConfig, {"head_depth": 17}, "head_depth must be between 0 and 16, found 17"),
        (ModelConfig, {"prior": 1.0}, "prior must be above 0 and below 1, found 1.0"),
        (ImageConfig, {"image_size": 900, "max_size": 800}, "at least image_size \\(900\\), found 800"),
        (ImageConfig, {"image_std": (1.0, 0.0, 1.0)}, "image_std must hold numbers above 0"),
        (AugmentConfig, {"min_crop": 0.0}, "min_crop must be above 0 and at most 1, found 0.0"),
        (AugmentConfig, {"scale_jitter": (2.0, 1.0)}, "the smaller first"),
        (AugmentConfig, {"multi_scale": (64, 0)}, "multi_scale must hold numbers above 0"),
        (AugmentConfig, {"copy_paste": 1.1}, "copy_paste must be between 0 and 1, found 1.1"),
        (AugmentConfig, {"mosaic": -0.1}, "mosaic must be between 0 and 1, found -0.1"),
        (AugmentConfig, {"mixup": math.nan}, "mixup must be finite"),
        (AugmentConfig, {"close_augment": -1}, "close_augment must be 0 or more, found -1"),
        (PostprocessConfig, {"max_detections": 0}, "max_detections must be above 0"),
        (TileConfig, {"tile": 16}, "tile must be 0 or at least 32 pixels"),
        (TileConfig, {"overlap": 0.9}, "overlap must be 0 or more and below 0.9"),
        (LoadingConfig, {"workers": -1}, "workers must be 0 or more, found -1"),
        (BatchConfig, {"batch_size": -1}, "batch_size must be 0 or more, found -1"),
        (RandomConfig, {"seed": -1}, "seed must be between 0 and 4294967295, found -1"),
        (ServeConfig, {"workers": 0}, "workers must be above 0, found 0"),
        (ExportConfig, {"int8": True}, "give --calibrate DATA"),
    ],
)
def test_refused_by_a_section(section, options, message):
    with pytest.raises(ConfigError, match=message):
        section(**options)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (TrainConfig, {"resume": True, "overwrite": True}, "resume and overwrite exclude"),
        (TrainConfig, {"balance_classes": True, "class_alpha": [0.5]}, "balance_classes computes class_alpha"),
        (StudyConfig, {"resume": True, "overwrite": True}, "resume and overwrite exclude"),
        (StudyConfig, {"losses": ["focall"]}, "losses must be one of focal, .*, found 'focall'. Did you mean 'focal'"),
        (SplitConfig, {"val": 0.6, "test": 0.5}, "their sum below 1, found val 0.6, test 0.5"),
        (PredictConfig, {"threshold": 2}, "threshold must be between 0 and 1, found 2"),
    ],
)
def test_refused_by_a_command(config, options, message):
    paths = {name: "x" for name, option in options_of(config).items() if option.is_required and name not in options}
    with pytest.raises(ConfigError, match=message):
        resolve(config, {**paths, **options})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("config", [TrainConfig, StudyConfig, PredictConfig, ServeConfig, ExportConfig])
def test_nan_and_infinity_are_refused_in_every_number(config, value):
    needed = {name: "x" for name, option in options_of(config).items() if option.is_required}
    checked = 0
    for name, option in options_of(config).items():
        hint = read_hint(option.annotation)
        item = hint.items or hint
        if item.kind is float:
            given = value if hint.items is None else (value,) * (hint.length or 1)
            with pytest.raises(ConfigError, match=f"{name} must be finite, found"):
                resolve(config, {**needed, name: given})
            checked += 1
    assert checked


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(gt=0), "above 0"),
        (Limits(ge=0.0), "0 or more"),
        (Limits(ge=0.0, le=1.0), "between 0 and 1"),
        (Limits(gt=0, le=1), "above 0 and at most 1"),
        (Limits(ge=0, lt=0.9), "0 or more and below 0.9"),
    ],
)
def test_the_text_of_a_range(limits, text):
    assert str(limits) == text
