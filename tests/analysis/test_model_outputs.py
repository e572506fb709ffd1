"""The outputs, targets and losses of an image do not depend on the shapes of the other images of its batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinanet.analysis.model_outputs import run_by_shape
from retinanet.config import ImageConfig, LossConfig, MatchConfig
from retinanet.data import Batch, collate
from retinanet.data.dataset import Sample
from retinanet.images import Frame
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.model import RetinaNet
from retinanet.types import Target

SIZES = ((64, 96), (96, 64), (64, 96), (50, 90), (128, 128))


def sample(index: int) -> Sample:
    width, height = SIZES[index]
    rng = np.random.default_rng(index)
    return Sample(
        pixels_3HW=torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)),
        target=Target(
            boxes_G4=torch.tensor([[2.0, 3.0, 40.0, 45.0 + index]]),
            labels_G=torch.tensor([index % 2]),
            crowd_G=torch.tensor([False]),
        ),
        frame=Frame(width, height, width, height),
        index=index,
        image_id=index,
    )


def batch(*indices: int) -> Batch:
    return collate([sample(i) for i in indices], ImageConfig()).to("cpu")


@pytest.fixture
def network() -> RetinaNet:
    torch.manual_seed(0)
    small = {"fpn_width": 16, "head_width": 16, "head_depth": 1, "head_norm": "group"}
    return RetinaNet(num_classes=2, backbone="resnet18", **small).eval()


def test_each_image_has_the_padding_that_it_has_alone() -> None:
    parts = batch(0, 1, 2, 3, 4).split_by_shape(divisor=32)
    assert [part.indices for part in parts] == [(0, 2, 3), (1,), (4,)]
    for part in parts:
        for n, index in enumerate(part.indices):
            assert torch.equal(part.images_N3HW[n], batch(index).images_N3HW[0])
            assert part.frames[n] == sample(index).frame
    same = batch(0, 2)
    assert same.split_by_shape(divisor=32) == [same]


@pytest.mark.parametrize("normaliser", ["batch", "image"])
def test_a_batch_of_several_shapes_has_the_outputs_and_the_loss_of_its_images(
    network: RetinaNet, normaliser: str
) -> None:
    assign, loss = make_assigner(MatchConfig()), DetectionLoss(config=LossConfig(normaliser=normaliser))
    with torch.no_grad():
        parts = run_by_shape(network, batch(0, 1, 2, 3, 4), assign, divisor=32)
        alone = [run_by_shape(network, batch(i), assign, divisor=32)[0] for i in range(5)]
        total = loss.over_parts([(part.outputs, part.targets) for part in parts]).total
        each = [loss(one.outputs, one.targets) for one in alone]
    for part in parts:
        for n, index in enumerate(part.batch.indices):
            torch.testing.assert_close(part.outputs.logits_NAK[n], alone[index].outputs.logits_NAK[0])
            assert torch.equal(part.targets.positive_NA[n], alone[index].targets.positive_NA[0])
    positives = [int(one.num_positives) for one in each]
    weights = positives if normaliser == "batch" else [1] * 5
    mean = sum(w * float(one.total) for w, one in zip(weights, each, strict=True)) / sum(weights)
    assert min(positives) > 0
    assert float(total) == pytest.approx(mean, rel=1e-5)


def test_a_trained_batchnorm_layer_gets_the_whole_batch(network: RetinaNet) -> None:
    """Its statistics are those of all images, and synchronised layers need an equal number of calls on all ranks."""
    assert len(run_by_shape(network.train(), batch(0, 1), make_assigner(MatchConfig()), divisor=32)) == 1
    network.backbone.freeze_batchnorm()
    assert len(run_by_shape(network.train(), batch(0, 1), make_assigner(MatchConfig()), divisor=32)) == 2
