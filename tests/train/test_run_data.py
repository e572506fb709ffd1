"""Anchors that a training run fits to its data: when it does so, and what it stores."""

import pytest

from retinanet.analysis import auto_anchors
from retinanet.analysis.auto_anchors import ANCHOR_OPTIONS
from retinanet.config import TrainConfig, resolve, with_options
from retinanet.train.run_data import with_fitted_anchors
from tests.analysis.datasets import random_dataset

DATA = {"train": "t.json", "val": "v.json", "output": "run", "image_size": 384, "max_size": 512}
MATCHED = random_dataset(100, sides=(40, 120), ratio=(0.7, 1.4))
LONG = random_dataset(100, sides=(60, 120), ratio=(4.5, 6.0))


@pytest.fixture(autouse=True)
def search_few_objects(monkeypatch):
    """Keep the search short."""
    monkeypatch.setattr(auto_anchors, "SEARCHED", 200)


def anchors_of(config):
    return {name: getattr(config.model, name) for name in ANCHOR_OPTIONS}


@pytest.mark.parametrize(
    ("options", "data", "reason"),
    [
        ({}, MATCHED, "of the objects have a positive anchor, and anchors are fitted below 98%"),
        ({"anchor_sizes": (32, 64, 128, 256, 512)}, LONG, "these options were given: anchor_sizes"),
        ({"preset": "paper"}, LONG, "the preset paper"),
        ({"start_from": "model.ckpt"}, LONG, "the model of --from has its own anchors"),
    ],
)
def test_as_needed_keeps_the_anchors(options, data, reason):
    config = resolve(TrainConfig, {**DATA, "anchors": "as_needed", **options})
    chosen, content = with_fitted_anchors(data, config)
    assert anchors_of(chosen) == anchors_of(config)
    assert chosen.fitted.anchors == "given", "a training run from config.yaml does not fit again"
    assert reason in content["sentence"]


def test_as_needed_fits_anchors_if_objects_match_none():
    config = resolve(TrainConfig, {**DATA, "anchors": "as_needed"})
    chosen, content = with_fitted_anchors(LONG, config)
    assert max(chosen.model.anchor_ratios) > 3
    assert content["share_before"] < 0.98 < content["share_after"]
    assert "only" in content["sentence"]
    assert "anchors per position" in content["sentence"]
    same, _ = with_fitted_anchors(LONG, with_options(config, anchors="auto"))
    assert anchors_of(same) == anchors_of(chosen)


def test_given_anchors_are_not_measured():
    config = resolve(TrainConfig, {**DATA, "anchors": "given"})
    assert with_fitted_anchors(LONG, config) == (config, {})


def test_auto_leaves_out_levels_unless_they_are_given():
    config = resolve(TrainConfig, {**DATA, "anchors": "auto"})
    fitted, _ = with_fitted_anchors(MATCHED, config)
    assert len(fitted.model.levels) < 5
    kept, _ = with_fitted_anchors(MATCHED, with_options(config, levels=(3, 4, 5, 6, 7)))
    assert kept.model.levels == (3, 4, 5, 6, 7)
