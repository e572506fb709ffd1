"""Tests of `ModelInfo`."""

from __future__ import annotations

import subprocess
import sys

from retinanet.checkpoint import ModelInfo
from retinanet.config import ImageConfig, LossConfig, MatchConfig, NmsConfig, PostprocessConfig, TileConfig
from tests.export.made import described

INFO = ModelInfo(
    classes=("a", "b"),
    category_ids=(1, 2),
    image_config=ImageConfig(image_size=64, max_size=96),
    postprocess_config=PostprocessConfig(),
    train_config={"positive_iou": 0.6, "loss": "focal", "gamma": 1.5, "epochs": 3},
)


def test_match_and_loss_config_come_from_the_training_options() -> None:
    assert INFO.match_config == MatchConfig(positive_iou=0.6)
    assert INFO.loss_config == LossConfig(loss="focal", gamma=1.5)
    assert INFO.tiling == TileConfig()


def test_info_fields_of_a_subclass_build_a_model_info() -> None:
    """The description of an exported file is a subclass of `ModelInfo` with more fields."""
    description = described(3)
    info = ModelInfo(**description.info_fields())
    assert (info.classes, info.image_config) == (description.classes, description.image_config)
    assert info.train_config == {"epochs": 3}


def test_only_a_given_kind_of_nms_replaces_that_of_the_model() -> None:
    agnostic = INFO.with_agnostic_nms(True)
    assert agnostic.postprocess_config == PostprocessConfig(agnostic_nms=True)
    assert INFO.with_agnostic_nms(None) is INFO
    assert agnostic.with_agnostic_nms(False) == INFO
    assert INFO.with_nms(NmsConfig()) == INFO
    changed = INFO.with_nms(NmsConfig(agnostic_nms=True, nms_threshold=0.7)).postprocess_config
    assert changed == PostprocessConfig(agnostic_nms=True, nms_threshold=0.7)


def test_importing_model_info_does_not_import_torch() -> None:
    code = "import sys; from retinanet.checkpoint import ModelInfo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
