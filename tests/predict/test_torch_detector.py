"""Building a detector from a network, with single settings or with the `ModelInfo` of a loaded model."""

from __future__ import annotations

import pytest
from torch import nn

from retinanet.checkpoint import ModelInfo
from retinanet.config import ImageConfig, PostprocessConfig, TileConfig
from retinanet.errors import ConfigError
from retinanet.predict.torch_detector import Detector, pick_device


def test_single_settings_and_model_info_give_equal_detectors() -> None:
    settings = {"image_config": ImageConfig(image_size=50), "postprocess_config": PostprocessConfig(max_detections=7)}
    single = Detector(model=nn.Identity(), classes=["a", "b"], category_ids=[3, 7], device="cpu", **settings)
    info = ModelInfo(classes=("a", "b"), category_ids=(3, 7), **settings)
    assert single.info == Detector(model=nn.Identity(), info=info, device="cpu").info
    assert (single.classes, single.category_ids, single.tiling) == (("a", "b"), (3, 7), TileConfig())


def test_contradictory_settings_are_refused() -> None:
    info = ModelInfo(
        classes=("a",), category_ids=(1,), image_config=ImageConfig(), postprocess_config=PostprocessConfig()
    )
    for options in ({}, {"classes": ("a", "b"), "category_ids": (1,)}, {"info": info, "classes": ("a",)}):
        with pytest.raises(ValueError, match=r"^expected .*, found "):
            Detector(model=nn.Identity(), device="cpu", **options)


def test_devices_are_picked_by_name() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(ConfigError, match="'gpu7' is not available"):
        pick_device("gpu7")
