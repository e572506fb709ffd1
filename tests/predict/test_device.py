"""Prediction, tiles and test-time augmentation on a GPU give the detections of the CPU, with one wait per network call.

The tests run the code for GPUs on the device double.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from retinanet.config import ImageConfig, PostprocessConfig
from retinanet.predict import torch_detector
from retinanet.predict.torch_detector import Detector
from tests.device_double import DEVICE, double
from tests.predict.made_network import random_network


@pytest.fixture(scope="module")
def network():
    network = random_network("resnet18")
    torch.nn.init.constant_(network.class_head.output.bias, -1.0)
    return network


@pytest.mark.parametrize(
    ("options", "calls"), [({}, 1), ({"tile": 80}, 3), pytest.param({"tta": True}, 6, marks=pytest.mark.slow)]
)
def test_detections_are_those_of_the_cpu_with_one_wait_per_call(network, options, calls, monkeypatch):
    """The waits of the network itself, in `waits`, are not counted here."""

    def make_detector(device):
        return Detector(
            model=copy.deepcopy(network),
            classes=["a", "b", "c", "d"],
            category_ids=[1, 2, 3, 4],
            image_config=ImageConfig(image_size=48, max_size=64),
            postprocess_config=PostprocessConfig(max_detections=20, nms_threshold=0.8),
            device=device,
        )

    images = np.random.default_rng(0).integers(0, 256, (2, 70, 100, 3), dtype=np.uint8)
    expected = make_detector("cpu").predict(images, **options)
    monkeypatch.setattr(torch_detector, "pick_device", torch.device)
    # The double has no autocast and no inference mode.
    monkeypatch.setattr(torch_detector, "inference_state", lambda _: torch.no_grad())
    with double() as counts:
        detector = make_detector(DEVICE)
        run, waits = detector._network, []

        def counted(*arguments, **keywords):
            before = counts.syncs
            outputs = run(*arguments, **keywords)
            waits.append(counts.syncs - before)
            return outputs

        detector._network = counted
        counts.clear()
        found = detector.predict(images, **options)
        assert len(waits) == calls
        assert counts.syncs - sum(waits) == calls, counts
    for detections, cpu_detections in zip(found, expected, strict=True):
        assert len(detections) >= 20
        assert (detections.class_id == cpu_detections.class_id).all()
        np.testing.assert_allclose(detections.confidence, cpu_detections.confidence, rtol=1e-5)
        np.testing.assert_allclose(detections.xyxy, cpu_detections.xyxy, atol=1e-3)
