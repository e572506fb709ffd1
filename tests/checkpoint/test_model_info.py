"""Classes and settings of a trained model, and what extends them."""

from __future__ import annotations

import subprocess
import sys

from retinanet.checkpoint import ModelInfo
from retinanet.config import ImageConfig, LossConfig, MatchConfig, PostprocessConfig, TileConfig
from tests.export.made import described

INFO = ModelInfo(
    classes=("a", "b"),
    category_ids=(1, 2),
    image_config=ImageConfig(image_size=64, max_size=96),
    postprocess_config=PostprocessConfig(),
    train_config={"positive_iou": 0.6, "loss": "focal", "gamma": 1.5, "epochs": 3},
)


def test_matching_and_losses_are_those_of_the_training() -> None:
    assert INFO.match_config == MatchConfig(positive_iou=0.6)
    assert INFO.loss_config == LossConfig(loss="focal", gamma=1.5)
    assert INFO.tiling == TileConfig()


def test_the_fields_build_another_record() -> None:
    """Of an exported file's description, only the fields of `ModelInfo`."""
    about = described(3)
    info = ModelInfo(**about.info_fields())
    assert (info.classes, info.image_config, info.train_config) == (about.classes, about.image_config, {"epochs": 3})


def test_it_comes_without_torch() -> None:
    code = "import sys; from retinanet.checkpoint import ModelInfo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
