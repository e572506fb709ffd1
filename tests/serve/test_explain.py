"""Test explanations: the fate of each box in hand-worked cases, and agreement with the real detector."""

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
    """Return a level with one 32 x 32 anchor per position, from boxes[row][column] and scores[row][column][class]."""
    boxes_HWC4 = np.array(boxes, np.float32)[:, :, None]
    H, W = boxes_HWC4.shape[:2]
    centers_HW2 = np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1).astype(np.float32) * 2**number
    anchors_HWC4 = np.concatenate([centers_HW2 - 16, centers_HW2 + 16], axis=-1)[:, :, None]
    return LevelOutputs(number, 2**number, np.array(scores, np.float32)[:, :, None], boxes_HWC4, anchors_HWC4)


def dense_outputs() -> DenseOutputs:
    """Return two levels of a 64 x 32 image that was not resized: 2 x 1 positions of stride 32, and 1 x 1 of stride 64.

    The IoU of (0 0 20 20) and (0 0 20 16) is 320 / 400 = 0.8.
    """
    return DenseOutputs(
        frame=Frame(64, 32, 64, 32),
        levels=(
            level(5, [[[0, 0, 20, 20], [0, 0, 20, 16]]], [[[0.9, 0.1], [0.7, 0.6]]]),
            level(6, [[[30, 0, 60, 30]]], [[[0.3, 0.04]]]),
        ),
    )


def explained(x: float, y: float, threshold: float = 0.25, **options: object) -> dict:
    config = PostprocessConfig(**options)  # type: ignore[arg-type]
    return explain(dense_outputs(), x=x, y=y, width=64, height=32, classes=CLASSES, threshold=threshold, config=config)


def test_each_level_has_the_scores_of_its_nearest_position():
    answer = explained(33, 3)
    first, second = answer["levels"]
    assert (first["level"], first["stride"], first["scores"]) == ("P5", 32, pytest.approx([0.7, 0.6]))
    assert (second["level"], second["stride"], second["scores"]) == ("P6", 64, pytest.approx([0.3, 0.04]))
    assert first["best"]["box"] == [0, 0, 20, 16]
    assert first["best"]["anchor"] == [16, -16, 48, 16]
    assert explained(3, 3)["levels"][0]["scores"] == pytest.approx([0.9, 0.1])


def test_the_fate_of_each_box():
    answer = explained(33, 3)
    # a (0.9); b (0.6) from the second position, which NMS keeps because its class differs; a (0.3) from the other level
    assert [(d["class"], d["score"]) for d in answer["detections"]] == [
        ("a", pytest.approx(0.9)),
        ("b", pytest.approx(0.6)),
        ("a", pytest.approx(0.3)),
    ]
    suppressed = answer["levels"][0]["best"]
    assert (suppressed["fate"], suppressed["detection"], suppressed["iou"]) == ("suppressed", 0, pytest.approx(0.8))
    assert suppressed["why"] == "suppressed by detection 1, which overlaps this box (IoU 0.80) and has a higher score"
    kept = explained(3, 3)["levels"][0]["best"]
    assert (kept["fate"], kept["detection"], kept["iou"]) == ("detected", 0, None)
    low = explained(33, 3, threshold=0.7)["levels"]
    assert [level["best"]["fate"] for level in low] == ["below_threshold", "below_threshold"]
    assert low[1]["best"]["why"] == "score 0.300 is not above the threshold 0.7"
    # only the highest score of each level is a candidate; on P5 that is 0.9, so 0.7 is none
    assert explained(33, 3, candidates_per_level=1)["levels"][0]["best"]["fate"] == "not_a_candidate"
    assert explained(33, 3, max_detections=2)["levels"][1]["best"]["fate"] == "beyond_max_detections"
    apart = explained(33, 3, nms_threshold=0.85)["levels"][0]["best"]
    assert (apart["fate"], apart["detection"]) == ("detected", 1)


def test_class_agnostic_nms_suppresses_the_box_of_another_class():
    """Box b (0.6) has an IoU of 0.8 with box a (0.9)."""
    answer = explained(33, 3, agnostic_nms=True)
    assert [(d["class"], d["score"]) for d in answer["detections"]] == [
        ("a", pytest.approx(0.9)),
        ("a", pytest.approx(0.3)),
    ]


def test_covering_boxes_come_from_any_position_without_near_duplicates():
    first, second = explained(10, 10)["levels"]
    assert [(p["score"], p["fate"]) for p in first["covering"]] == [
        (pytest.approx(0.9), "detected")
    ]  # IoU 0.8 is a near-duplicate
    assert second["covering"] == []
    assert [p["box"] for p in explained(10, 18)["levels"][0]["covering"]] == [[0, 0, 20, 20]]


def test_the_summary():
    assert explained(5, 5)["summary"] == "Detected here: detection 1, a, score 0.90, and 1 more."
    assert explained(62, 31)["summary"].startswith(
        "This place is 2 pixels outside of detection 3, a. No detection here. The box with the highest score is from "
        "P5: a, suppressed by detection 1"
    )
    assert explained(62, 31)["near"] == {"detection": 2, "distance": 2.24}  # (2, 1) from the corner of 30 0 60 30
    assert explained(64, 31)["summary"].startswith("No detection here")  # 4 pixels: more than a tenth of 30
    assert explained(5, 5)["near"] is None
    assert explained(40, 5, 0.95)["summary"] == (
        "No detection here. The box with the highest score is from P5: a, score 0.700 is not above the threshold 0.95."
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
def test_explanations_have_the_same_detections_as_the_detector(network: Detector, size: tuple[int, int]):
    image = made_image(*size, seed=3)
    (detected,) = network.detect([image])
    dense = network.dense(image)
    config = network.postprocess_config
    answer = explain(dense, x=50, y=60, width=size[0], height=size[1], classes=CLASSES, threshold=0.5, config=config)
    assert len(detected) == 20
    assert [d["class_id"] for d in answer["detections"]] == detected.labels_D.tolist()
    assert [d["score"] for d in answer["detections"]] == pytest.approx(detected.scores_D.tolist(), abs=1e-5)
    for d, box in zip(answer["detections"], detected.boxes_D4.tolist(), strict=True):
        assert d["box"] == pytest.approx(box, abs=0.02)
    assert [level["stride"] for level in answer["levels"]] == [8, 16, 32, 64, 128]
    for level in answer["levels"]:
        x, y = level["position"]
        fx, fy = dense.frame.width / dense.frame.resized_width, dense.frame.height / dense.frame.resized_height
        at_edge = math.ceil(max(size) / fx / level["stride"]) <= 2
        assert at_edge or (
            abs(x - 50) <= level["stride"] * fx / 2 + 0.01 and abs(y - 60) <= level["stride"] * fy / 2 + 0.01
        )


def test_dense_accepts_an_image_that_the_server_has_resized(network: Detector):
    image = made_image(192, 160)
    whole = network.dense(image)
    scaled = Scaled(image.resize((115, 96), Image.Resampling.BILINEAR), 192, 160)
    assert network.dense(scaled).frame == whole.frame
    assert dataclasses.is_dataclass(whole)
    assert np.array_equal(network.dense(scaled).levels[0].scores_HWCK, whole.levels[0].scores_HWCK)
