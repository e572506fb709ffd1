"""What became of each box, by hand; and the same detections as the real path gives."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.config import ImageConfig, PostprocessConfig
from retinanet.images import Frame, Scaled
from retinanet.model import RetinaNet
from retinanet.predict.dense import DenseOutputs, LevelOutputs
from retinanet.predict.torch_detector import Detector
from retinanet.serve.explain import explain
from tests.conftest import made_image

CLASSES = ("a", "b")


def level(number: int, boxes: list[list[list[float]]], scores: list[list[list[float]]]) -> LevelOutputs:
    """One anchor of 32 x 32 at each position: boxes[row][column] and scores[row][column] of each class."""
    boxes_HWC4 = np.array(boxes, np.float32)[:, :, None]
    H, W = boxes_HWC4.shape[:2]
    centers_HW2 = np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1).astype(np.float32) * 2**number
    anchors_HWC4 = np.concatenate([centers_HW2 - 16, centers_HW2 + 16], axis=-1)[:, :, None]
    return LevelOutputs(number, 2**number, np.array(scores, np.float32)[:, :, None], boxes_HWC4, anchors_HWC4)


def made() -> DenseOutputs:
    """Two levels of an image of 64 x 32 that was not resized: 2 x 1 positions of stride 32, and 1 x 1 of 64.

    IoU of (0 0 20 20) with (0 0 20 16) is 320 / 400 = 0.8.
    """
    return DenseOutputs(
        frame=Frame(64, 32, 64, 32),
        levels=(
            level(5, [[[0, 0, 20, 20], [0, 0, 20, 16]]], [[[0.9, 0.1], [0.7, 0.6]]]),
            level(6, [[[30, 0, 60, 30]]], [[[0.3, 0.04]]]),
        ),
    )


def told(x: float, y: float, threshold: float = 0.25, **options: object) -> dict:
    config = PostprocessConfig(**options)  # type: ignore[arg-type]
    return explain(made(), x=x, y=y, width=64, height=32, classes=CLASSES, threshold=threshold, config=config)


def test_every_level_says_what_it_scored_at_the_nearest_position():
    answer = told(33, 3)
    first, second = answer["levels"]
    assert (first["level"], first["stride"], first["scores"]) == ("P5", 32, pytest.approx([0.7, 0.6]))
    assert (second["level"], second["stride"], second["scores"]) == ("P6", 64, pytest.approx([0.3, 0.04]))
    assert first["best"]["box"] == [0, 0, 20, 16]
    assert first["best"]["anchor"] == [16, -16, 48, 16]
    assert told(3, 3)["levels"][0]["scores"] == pytest.approx([0.9, 0.1])


def test_the_fate_of_each_box():
    answer = told(33, 3)
    # a at 0.9, b at 0.6 on the second position's box (another class is no rival), a at 0.3 on the other level
    assert [(d["class"], d["score"]) for d in answer["detections"]] == [
        ("a", pytest.approx(0.9)),
        ("b", pytest.approx(0.6)),
        ("a", pytest.approx(0.3)),
    ]
    beaten = answer["levels"][0]["best"]
    assert (beaten["fate"], beaten["detection"], beaten["iou"]) == ("suppressed", 0, pytest.approx(0.8))
    assert beaten["why"] == "suppressed by detection 1, which scores more and overlaps it: IoU 0.80"
    kept = told(3, 3)["levels"][0]["best"]
    assert (kept["fate"], kept["detection"], kept["iou"]) == ("detected", 0, None)
    low = told(33, 3, threshold=0.7)["levels"]
    assert [one["best"]["fate"] for one in low] == ["below_threshold", "below_threshold"]
    assert low[1]["best"]["why"] == "score 0.300 is not above the threshold 0.7"
    # the best of a level alone is looked at: the 0.7 of P5 is not
    assert told(33, 3, candidates_per_level=1)["levels"][0]["best"]["fate"] == "not_a_candidate"
    assert told(33, 3, max_detections=2)["levels"][1]["best"]["fate"] == "beyond_max_detections"
    apart = told(33, 3, nms_threshold=0.85)["levels"][0]["best"]
    assert (apart["fate"], apart["detection"]) == ("detected", 1)


def test_boxes_over_the_place_come_from_any_position_and_no_two_are_the_same():
    first, second = told(10, 10)["levels"]
    assert [(p["score"], p["fate"]) for p in first["covering"]] == [(pytest.approx(0.9), "detected")]  # 0.8 is "same"
    assert second["covering"] == []
    assert [p["box"] for p in told(10, 18)["levels"][0]["covering"]] == [[0, 0, 20, 20]]


def test_the_summary():
    assert told(5, 5)["summary"] == "Found here: detection 1, a at 0.90, and 1 more."
    assert told(62, 31)["summary"].startswith("Nothing found here. The best box is of P5: a, suppressed by detection 1")
    assert told(40, 5, 0.95)["summary"] == (
        "Nothing found here. The best box is of P5: a, score 0.700 is not above the threshold 0.95."
    )


@pytest.fixture(scope="module")
def network() -> Detector:
    torch.manual_seed(0)
    model = RetinaNet(
        num_classes=2, backbone="tf_efficientnet_lite0", fpn_width=16, head_width=16, head_depth=1, prior=0.3
    )
    for parameter in model.class_head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    config = ImageConfig(image_size=96, max_size=128)
    settings = PostprocessConfig(score_threshold=0.5, candidates_per_level=50, max_detections=20)
    return Detector(
        model=model,
        classes=CLASSES,
        category_ids=(1, 2),
        image_config=config,
        postprocess_config=settings,
        device="cpu",
    )


@pytest.mark.parametrize("size", [(192, 160), (100, 260)])
def test_its_detections_are_those_of_the_detector(network: Detector, size: tuple[int, int]):
    image = made_image(*size, seed=3)
    (found,) = network.detect([image])
    dense = network.dense(image)
    config = network.postprocess_config
    answer = explain(dense, x=50, y=60, width=size[0], height=size[1], classes=CLASSES, threshold=0.5, config=config)
    assert len(found) == 20
    assert [d["class_id"] for d in answer["detections"]] == found.labels_D.tolist()
    assert [d["score"] for d in answer["detections"]] == pytest.approx(found.scores_D.tolist(), abs=1e-5)
    for d, box in zip(answer["detections"], found.boxes_D4.tolist(), strict=True):
        assert d["box"] == pytest.approx(box, abs=0.02)
    assert [one["stride"] for one in answer["levels"]] == [8, 16, 32, 64, 128]
    for one in answer["levels"]:
        x, y = one["position"]
        fx, fy = dense.frame.width / dense.frame.resized_width, dense.frame.height / dense.frame.resized_height
        at_edge = math.ceil(max(size) / fx / one["stride"]) <= 2
        assert at_edge or (
            abs(x - 50) <= one["stride"] * fx / 2 + 0.01 and abs(y - 60) <= one["stride"] * fy / 2 + 0.01
        )


def test_dense_takes_what_a_server_has_decoded(network: Detector):
    image = made_image(192, 160)
    whole = network.dense(image)
    scaled = Scaled(image.resize((115, 96), Image.Resampling.BILINEAR), 192, 160)
    assert network.dense(scaled).frame == whole.frame
    assert dataclasses.is_dataclass(whole)
    assert np.array_equal(network.dense(scaled).levels[0].scores_HWCK, whole.levels[0].scores_HWCK)
