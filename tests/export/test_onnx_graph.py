"""The decoding graph returns the detections of `postprocess`, on random outputs and on a case computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from retinanet.config import ImageConfig, ModelConfig, PostprocessConfig
from retinanet.export.onnx_graph import NORMALISED, decoding_graph, normalisation_graph
from retinanet.export.parity import compare_detections
from retinanet.images import Frame, normalise
from retinanet.model.anchors import AnchorGenerator
from retinanet.postprocess import postprocess
from retinanet.runtime.description import DETECTIONS, Description, dense_names
from retinanet.types import ArrayDetections, HeadOutputs
from tests.export.made import described

ort = pytest.importorskip("onnxruntime")


def run(model: Any, inputs: dict[str, Any], outputs: list[str] | tuple[str, ...]) -> list[Any]:
    return ort.InferenceSession(model.SerializeToString()).run(list(outputs), inputs)


def anchors(about: Description, H: int, W: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    generator = AnchorGenerator(config=ModelConfig(levels=about.levels, anchor_style=about.anchor_style))  # type: ignore[arg-type]
    generator.cells = [torch.tensor(cells) for cells in about.cells]
    sizes = [(-(-H // s), -(-W // s)) for s in generator.strides]
    return generator(sizes, like=torch.zeros(1), input_size=(H, W))


def detections(outputs: list[Any], n: int) -> ArrayDetections:
    boxes, scores, labels, counts = (out[n] for out in outputs)
    assert (scores[counts:] == 0).all()
    assert (labels[counts:] == -1).all()
    assert (boxes[counts:] == 0).all()
    return ArrayDetections(boxes_D4=boxes[:counts], scores_D=scores[:counts], labels_D=labels[:counts])


@pytest.mark.parametrize(
    ("K", "H", "W", "config"),
    [
        (1, 64, 96, PostprocessConfig(candidates_per_level=50)),
        (5, 96, 64, PostprocessConfig(candidates_per_level=50)),
        (
            5,
            100,
            77,
            PostprocessConfig(candidates_per_level=50, max_detections=7),
        ),  # sides that are not multiples of a stride
        (3, 64, 64, PostprocessConfig(candidates_per_level=2000, score_threshold=0.3, nms_threshold=0.3)),
        (2, 64, 64, PostprocessConfig(candidates_per_level=50, score_threshold=0.0, max_detections=5000)),
        (2, 64, 64, PostprocessConfig(candidates_per_level=50, score_threshold=0.9999)),  # almost no detections
        (3, 96, 64, PostprocessConfig(candidates_per_level=50, clip_before_nms=False)),  # as in Detectron2
        (5, 96, 64, PostprocessConfig(candidates_per_level=50, agnostic_nms=True)),
        (2, 64, 64, PostprocessConfig(candidates_per_level=50, agnostic_nms=True, clip_before_nms=False)),
        (3, 64, 64, PostprocessConfig(candidates_per_level=50, clip_before_nms=False, max_detections=9)),
    ],
)
@pytest.mark.parametrize("style", ["exact", "torchvision"])
def test_the_graph_equals_postprocess(K: int, H: int, W: int, config: PostprocessConfig, style: str) -> None:
    about = described(K, postprocess_config=config, anchor_style=style)
    anchors_A4, per_level = anchors(about, H, W)
    generator = torch.Generator().manual_seed(K * H + W)
    A, N = len(anchors_A4), 3
    logits_NAK = torch.randn(N, A, K, generator=generator) * 3
    deltas_NA4 = torch.randn(N, A, 4, generator=generator) * torch.tensor([0.5, 0.5, 1.0, 1.0])
    frames = [Frame(W, H, W, H), Frame(2 * W, 3 * H, W, H - 9), Frame(W // 2, H, W - 20, H)]
    outputs = HeadOutputs(
        logits_NAK=logits_NAK, deltas_NA4=deltas_NA4, anchors_A4=anchors_A4, anchors_per_level=per_level
    )
    expected = postprocess(outputs, frames=frames, config=config)
    inputs = {
        "images": np.zeros((N, 3, H, W), np.float32),
        "frames": np.array(frames, np.float32),
        "score_threshold": np.array([config.score_threshold], np.float32),
        "nms_threshold": np.array([config.nms_threshold], np.float32),
        "max_detections": np.array([config.max_detections], np.int64),
    }
    parts = [(logits_NAK.split(per_level, 1)[i], deltas_NA4.split(per_level, 1)[i]) for i in range(5)]
    inputs |= dict(zip(dense_names(about.levels), (p.numpy() for pair in parts for p in pair), strict=True))
    results = run(decoding_graph(about), inputs, DETECTIONS)
    for n in range(N):
        difference = compare_detections(expected[n].numpy(), detections(results, n), config)
        assert difference.agrees, difference
        assert difference.compared + difference.at_threshold == len(expected[n].scores_D)
        assert (np.diff(results[1][n]) <= 0).all(), "best first"


@pytest.mark.parametrize(("options", "expected"), [({}, [1, 0]), ({"agnostic_nms": True}, [1])])
def test_two_classes_with_an_iou_of_0_6(options: dict[str, Any], expected: list[int]) -> None:
    """Position (0, 0) of level 3 has the boxes 0 0 20 20 (class 0, score 0.5) and 0 0 20 12 (class 1, score 0.75)."""
    cells = ((0.0, 0.0, 20.0, 20.0), (0.0, 0.0, 20.0, 12.0))
    about = described(2, levels=(3,), cells=(cells,), postprocess_config=PostprocessConfig(**options))
    logits_NAK = np.full((1, 64 * 2, 2), -9.0, np.float32)
    logits_NAK[0, 0, 0], logits_NAK[0, 1, 1] = 0, math.log(3)
    inputs = {
        "images": np.zeros((1, 3, 64, 64), np.float32),
        "frames": np.zeros((1, 4), np.float32),
        "score_threshold": np.array([0.05], np.float32),
        "nms_threshold": np.array([0.5], np.float32),
        "max_detections": np.array([4]),
        "p3_logits": logits_NAK,
        "p3_deltas": np.zeros((1, 64 * 2, 4), np.float32),
    }
    _, _, labels, counts = run(decoding_graph(about), inputs, DETECTIONS)
    assert labels[0, : counts[0]].tolist() == expected


def test_one_box_by_hand() -> None:
    """The 32 x 32 anchor of level 4 at column 2, row 1 has its centre at (32, 16).

    The offsets move it right by half its width and double its height: centre (48, 16), x 32..64, y -16..48. The box is
    clipped at y = 0, and multiplied by 2, because the input is half as large as the original image.
    """
    cells = ((-16.0, -16.0, 16.0, 16.0),)
    about = described(2, levels=(3, 4, 5), cells=(cells, cells, cells))
    dense = {}
    for level in about.levels:
        size = (64 // 2**level) ** 2
        dense[f"p{level}_logits"] = np.full((1, size, 2), -9.0, np.float32)
        dense[f"p{level}_deltas"] = np.zeros((1, size, 4), np.float32)
    dense["p4_logits"][0, 1 * 4 + 2, 1] = math.log(3)  # 0.75
    dense["p4_deltas"][0, 1 * 4 + 2] = [0.5, 0, 0, math.log(2)]
    thresholds = {"score_threshold": [0.05], "nms_threshold": [0.5]}
    inputs = {
        "images": np.zeros((1, 3, 64, 64), np.float32),
        "frames": np.array([[128, 128, 64, 64]], np.float32),
        "max_detections": np.array([4]),
        **{name: np.array(value, np.float32) for name, value in thresholds.items()},
        **dense,
    }
    boxes, scores, labels, counts = run(decoding_graph(about), inputs, DETECTIONS)
    assert counts.tolist() == [1]
    assert labels.tolist() == [[1, -1, -1, -1]]
    np.testing.assert_allclose(scores, [[0.75, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(boxes[0, 0], [64, 0, 128, 96], rtol=1e-6)


@pytest.mark.parametrize("uint8", [False, True])
def test_normalisation_equals_training_and_sets_padding_to_zero(uint8: bool) -> None:
    config = ImageConfig(image_mean=(0.1, 0.5, 0.9), image_std=(0.2, 0.25, 0.3))
    about = described(2, image_config=config, uint8=uint8)
    pixels_N3HW = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 12), dtype=np.uint8)
    frames = np.array([[5, 6, 10, 6], [1, 1, 12, 8]], np.float32)
    images = pixels_N3HW if uint8 else pixels_N3HW.astype(np.float32) / 255
    (normalised,) = run(normalisation_graph(about), {"images": images, "frames": frames}, [NORMALISED])
    expected = np.stack(
        [normalise(p.transpose(1, 2, 0), mean=config.image_mean, std=config.image_std) for p in pixels_N3HW]
    )
    expected[0, :, 6:] = 0
    expected[0, :, :, 10:] = 0
    np.testing.assert_allclose(normalised, expected, atol=1e-5)
    (whole,) = run(
        normalisation_graph(about), {"images": images[:1], "frames": np.zeros((1, 4), np.float32)}, [NORMALISED]
    )
    assert (whole[0, :, 6:] != 0).any(), "frames of zeros mean an image without padding"
