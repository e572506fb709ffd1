"""Fitted anchors: IoU of the search against the real anchors, the gain, and data that needs no other anchors."""

import dataclasses
import json

import numpy as np
import pytest
import yaml

from retinanet.analysis.auto_anchors import fit_anchors
from retinanet.config import ImageConfig, MatchConfig, ModelConfig
from retinanet.data import load
from retinanet.report.training import training_report
from retinanet.train import fit as train
from tests.analysis.datasets import random_dataset

IMAGE = ImageConfig(image_size=384, max_size=512)


def fit(data, **model):
    return fit_anchors(data, model_config=ModelConfig(**model), match_config=MatchConfig(), image_config=IMAGE)


@pytest.mark.slow
def test_fitted_anchors_cover_small_objects():
    """Anchors with sides of 32 pixels or more miss many objects with sides of 12 to 40 pixels."""
    data = random_dataset(200, sides=(12, 40))
    fitted = fit(data)
    assert fitted.changed
    assert fitted.before.share < 0.75
    assert fitted.after.share > fitted.before.share + 0.2
    assert fitted.flags().startswith("--")
    again = fit(data)
    assert again.model_config == fitted.model_config, "the same seed gives the same anchors"


@pytest.mark.slow
def test_tiny_objects_get_a_p2_level_and_no_coarse_levels():
    fitted = fit(random_dataset(200, sides=(5, 12)))
    config = fitted.model_config
    assert config.levels in {(2,), (2, 3)}
    assert len(config.anchor_sizes) == len(config.levels)
    assert fitted.flags().startswith("--levels 2")
    assert "P2, which makes a training step several times as long" in fitted.sentence()
    assert "larger images (--image-size" in fitted.sentence(), "no anchors of stride 4 match all boxes of 5 pixels"


@pytest.mark.slow
def test_a_backbone_without_a_map_at_stride_4_gets_no_p2_level():
    fitted = fit(random_dataset(200, sides=(5, 12)), backbone="tests.outside_parts:from_stride_8")
    assert fitted.model_config.levels == (3,)


def test_long_objects_get_long_anchors():
    fitted = fit(random_dataset(200, sides=(40, 150), ratio=(6.0, 9.0)))
    assert max(fitted.model_config.anchor_ratios) > 4
    assert fitted.after.share > fitted.before.share + 0.3


@pytest.mark.slow
def test_anchors_that_fit_are_not_needed_and_lose_levels_without_objects():
    fitted = fit(random_dataset(200, sides=(40, 200), ratio=(0.7, 1.4)))
    assert not fitted.needed
    assert fitted.model_config.levels[-1] < 7
    assert fitted.after.share >= fitted.before.share > 0.98
    assert "times the original number" in fitted.sentence()


def test_data_without_objects_keeps_the_anchors():
    fitted = fit(random_dataset(0))
    assert not fitted.changed
    assert fitted.model_config == ModelConfig()
    assert fitted.flags() == ""
    assert "the anchors fit" in fitted.sentence()


@pytest.mark.slow
def test_anchors_are_fitted_to_rare_classes_too():
    """The 12 tiny objects have a higher weight than the 200 large ones."""
    many, few = random_dataset(200, sides=(60, 150), classes=1), random_dataset(12, seed=1, sides=(13, 15), classes=1)
    records = []
    for record, other in zip(many.records, few.records, strict=True):
        records.append(
            dataclasses.replace(
                record,
                boxes_G4=np.concatenate([record.boxes_G4, other.boxes_G4]),
                labels_G=np.concatenate([record.labels_G, other.labels_G + 1]),
                crowd_G=np.concatenate([record.crowd_G, other.crowd_G]),
                areas_G=np.concatenate([record.areas_G, other.areas_G]),
                annotation_ids=tuple(range(len(record.labels_G) + len(other.labels_G))),
            )
        )
    data = dataclasses.replace(many, records=tuple(records), classes=("large", "tiny"), category_ids=(1, 2))
    fitted = fit(data)
    before, after = ({n: 1 - u / t for n, u, t in c.per_class()} for c in (fitted.before, fitted.after))
    assert before["tiny"] < 0.2
    assert after["tiny"] > 0.8
    assert after["large"] > 0.97


@pytest.mark.slow
def test_train_with_auto_anchors(tiny):
    """config.yaml holds the fitted anchors, so that training from this file does not fit again."""
    options = {**tiny, "anchor_sizes": (64.0, 128.0, 256.0, 512.0, 1024.0), "anchors": "auto", "epochs": 1}
    train(**options, max_steps=1)
    saved = yaml.safe_load((tiny["output"] / "config.yaml").read_text())
    assert saved["anchors"] == "given"
    assert saved["anchor_sizes"] != [64, 128, 256, 512, 1024]
    choice = json.loads((tiny["output"] / "anchors.json").read_text())
    assert choice["anchors"] == "auto"
    assert choice["share_after"] > choice["share_before"]
    assert choice["sentence"] in training_report(tiny["output"]).read_text()

    resumed = train(output=tiny["output"], resume=True, anchors="auto", max_steps=2)
    assert list(resumed.config.model.anchor_sizes) == saved["anchor_sizes"], "a resumed run keeps its anchors"
    assert json.loads((tiny["output"] / "anchors.json").read_text()) == choice


@pytest.mark.slow
def test_on_coco128(shared_data):
    """At 512 pixels the default anchors miss a third of the objects, fitted anchors with a P2 level a twentieth."""
    data = load(shared_data / "coco128" / "annotations" / "instances_train2017.json", skip_invalid=True)
    fitted = fit_anchors(
        data,
        model_config=ModelConfig(),
        match_config=MatchConfig(),
        image_config=ImageConfig(image_size=512, max_size=512),
    )
    assert fitted.before.share < 0.70
    assert fitted.after.share > 0.93
