"""The path from images to the imbalance measurement on another device than the CPU."""

import dataclasses

import numpy as np
import pytest
import torch

from retinanet import RetinaNet
from retinanet.analysis.imbalance_meter import ImbalanceMeter
from retinanet.config import LossConfig, MatchConfig
from retinanet.images import Frame
from retinanet.matching import make_assigner
from retinanet.types import Target
from tests.analysis.microscope_inputs import measured as loss_microscope
from tests.analysis.microscope_inputs import random_batch
from tests.device_double import double, to_cpu, to_double

FRAMES = [Frame(width=128, height=96, resized_width=64, resized_height=48)] * 2


def batch():
    """Return two images and their objects; the second image has none."""
    torch.manual_seed(0)
    boxes = torch.tensor([[4.0, 4, 36, 36], [20, 8, 60, 44], [30, 2, 42, 12]])
    objects = Target(boxes_G4=boxes, labels_G=torch.tensor([0, 2, 1]), crowd_G=torch.tensor([False, False, True]))
    empty = Target(boxes_G4=boxes[:0], labels_G=objects.labels_G[:0], crowd_G=objects.crowd_G[:0])
    return torch.rand(2, 3, 48, 64), [objects, empty]


def measured(network, images, objects):
    assigner = make_assigner(MatchConfig())
    outputs = network(images)
    targets = assigner(outputs.anchors_A4, objects, anchors_per_level=outputs.anchors_per_level)
    meter = ImbalanceMeter(classes=("a", "b", "c"), loss_config=LossConfig())
    meter.add(outputs, targets, objects, FRAMES)
    return outputs, targets, meter.result()


def test_forward_matching_and_the_imbalance_equal_those_of_the_cpu():
    network = RetinaNet(num_classes=3, backbone="resnet18").eval()
    images, objects = batch()
    outputs, targets, expected = measured(network, images, objects)
    with double():
        on_device = measured(to_double(network), to_double(images), to_double(objects))
    for name in ("logits_NAK", "deltas_NA4", "anchors_A4"):
        torch.testing.assert_close(to_cpu(getattr(on_device[0], name)), getattr(outputs, name).detach())
    for field in dataclasses.fields(targets):
        assert torch.equal(to_cpu(getattr(on_device[1], field.name)), getattr(targets, field.name)), field.name
    assert expected.positive_anchors > 5
    for field in dataclasses.fields(expected):
        found, value = getattr(on_device[2], field.name), getattr(expected, field.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(found, value, rtol=1e-4, err_msg=field.name)
        elif isinstance(value, float):
            assert found == pytest.approx(value, rel=1e-4)
        else:
            assert found == value, field.name


@pytest.mark.parametrize("on_cpu", ["images", "objects", "network"])
def test_a_part_on_another_device_is_an_error(on_cpu):
    network = RetinaNet(num_classes=3, backbone="resnet18").eval()
    images, objects = batch()
    with double(), pytest.raises(RuntimeError, match="expected all tensors on"):
        measured(
            network if on_cpu == "network" else to_double(network),
            images if on_cpu == "images" else to_double(images),
            objects if on_cpu == "objects" else to_double(objects),
        )


def test_the_loss_microscope_equals_that_of_the_cpu():
    dense = random_batch(0)

    def on_device(dense):
        return dataclasses.replace(
            dense,
            batch=dataclasses.replace(dense.batch, targets=tuple(to_double(target) for target in dense.batch.targets)),
            outputs=to_double(dense.outputs),
            targets=to_double(dense.targets),
        )

    expected = loss_microscope([dense])
    with double():
        found = loss_microscope([on_device(dense)])
    for one, other in zip(found.groups, expected.groups, strict=True):
        assert one.kind == other.kind
        np.testing.assert_array_equal(one.count_B, other.count_B)
        np.testing.assert_allclose(one.logit_B, other.logit_B)
    assert [place.kind for place in found.places] == [place.kind for place in expected.places]
    for one, other in zip(found.mined, expected.mined, strict=True):
        np.testing.assert_allclose(one.sums, other.sums)
