"""The evaluation in training collects detections and losses of the CPU on a GPU, with one wait per image shape."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import torch

from retinanet.config import ImageConfig, LossConfig, MatchConfig, PostprocessConfig
from retinanet.data import Batch
from retinanet.images import Frame
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.train.detection_module import DetectionModule
from retinanet.train.validation_loss import CollectedLosses
from retinanet.types import Target
from tests.device_double import double, to_double
from tests.predict.made_network import random_network


def collect(network, batch):
    """Return the index and the detections of each image, and the losses, from a validation step."""
    module = SimpleNamespace(
        model=network,
        run_config=SimpleNamespace(image=ImageConfig()),
        postprocess_config=PostprocessConfig(max_detections=5),
        assigner=make_assigner(MatchConfig()),
        loss=DetectionLoss(config=LossConfig()),
        image_losses=CollectedLosses(),
        detections=[],
    )
    with torch.no_grad():
        DetectionModule.validation_step(module, batch, 0)
    return module.detections, module.image_losses


def test_a_validation_step_collects_the_detections_of_the_cpu():
    """The second and the third image have one shape. The waits of the network itself are not counted."""
    network = random_network("resnet18")
    torch.nn.init.constant_(network.class_head.output.bias, -1.0)
    target = Target(
        boxes_G4=torch.tensor([[8.0, 8, 40, 40]]), labels_G=torch.zeros(1).long(), crowd_G=torch.zeros(1).bool()
    )
    batch = Batch(
        images_N3HW=torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0)),
        targets=(target,) * 3,
        frames=(Frame(192, 128, 96, 64), Frame(50, 60, 50, 60), Frame(100, 120, 50, 60)),
        indices=(4, 7, 2),
    )
    expected, losses = collect(network, batch)
    assert [index for index, _ in expected] == [4, 7, 2]
    with double() as counts:
        on_double = to_double(copy.deepcopy(network))
        parts = to_double(batch).split_by_shape(divisor=ImageConfig().size_divisor)
        assert len(parts) == 2
        counts.clear()
        for part in parts:
            on_double(part.images_N3HW)
        network_syncs = counts.syncs
        counts.clear()
        collected = [collect(on_double, part) for part in parts]
        assert counts.syncs == network_syncs + 2, counts
        found_losses = [row for _, part_losses in collected for row in part_losses.rows()]
    found = [pair for detections, _ in collected for pair in detections]
    np.testing.assert_allclose(sorted(found_losses), sorted(losses.rows()), rtol=1e-4)
    assert min(positives for *_, positives in found_losses) > 0
    for (index, detections), (cpu_index, cpu_detections) in zip(found, expected, strict=True):
        assert index == cpu_index
        assert len(detections) == 5
        assert (detections.labels_D == cpu_detections.labels_D).all()
        np.testing.assert_allclose(detections.scores_D, cpu_detections.scores_D, rtol=1e-5)
        np.testing.assert_allclose(detections.boxes_D4, cpu_detections.boxes_D4, atol=1e-3)
