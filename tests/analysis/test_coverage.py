"""Anchor coverage: hand-worked numbers, all pairwise IoUs, and sizes in the network's input."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from retinanet.analysis.coverage import coverage, input_boxes
from retinanet.config import ImageConfig, MatchConfig, ModelConfig
from retinanet.model import AnchorGenerator
from tests.analysis.datasets import dataset_from_boxes, random_dataset

IMAGE = ImageConfig(image_size=384, max_size=512)


def measure(data, *, match=None, image=IMAGE, **model):
    return coverage(data, model_config=ModelConfig(**model), match_config=match or MatchConfig(), image_config=image)


def test_coverage_by_hand():
    """Anchor with sides of 32 pixels: the IoU of a 32-pixel square at a position is 1, of a 16-pixel square 0.25."""
    data = dataset_from_boxes([[(0, 48, 48, 80, 80), (1, 192, 192, 208, 208)], []])
    measured = measure(data, anchor_scales=(1.0,), anchor_ratios=(1.0,))
    assert measured.best_iou_O.tolist() == pytest.approx([1.0, 0.25])
    assert measured.level_O.tolist() == [0, 0]
    assert measured.reached_O.tolist() == [True, False]
    assert measured.unreached == 1
    assert measured.per_class() == [("b", 1, 1), ("a", 0, 1)]
    assert measured.per_band() == [("small", 1, 1), ("medium", 0, 1)], "256 and 1024 square pixels"
    assert "b 1 of 1" in measured.sentence()
    assert (measured.anchors_P3.sum(axis=1) == measured.anchors_L.sum() // 2).all()
    assert measured.anchors_P3[1].tolist()[:2] == [0, 0], "an image without objects has negatives only"
    assert measured.positives_L.sum() == measured.positives_O.sum() == measured.anchors_P3[:, 0].sum()


def test_coverage_equals_all_pairwise_ious():
    data = random_dataset(60, images=6)
    measured = measure(data)
    generator = AnchorGenerator(config=ModelConfig())
    sizes = [(-(-384 // s), -(-512 // s)) for s in generator.strides]
    anchors, _ = generator(sizes, like=torch.zeros(()))
    for o in range(measured.objects):
        boxes, _ = input_boxes(data.records[measured.image_O[o]], IMAGE)
        iou = box_iou(anchors, boxes)
        g = measured.object_O[o]
        assert measured.best_iou_O[o] == pytest.approx(iou[:, g].max().item(), abs=1e-5)
        positive = (iou.max(1).values >= 0.5) & (iou.argmax(1) == g)
        assert measured.positives_O[o] == positive.sum().item()


def test_boxes_are_measured_in_input_pixels():
    """At half the input size the sides of the objects are half as long, but the COCO sizes stay."""
    data = random_dataset(20, images=2)
    full, half = measure(data), measure(data, image=ImageConfig(image_size=192, max_size=256))
    np.testing.assert_allclose(full.width_O, 2 * half.width_O, rtol=1e-5)
    assert (full.band_O == half.band_O).all()


def test_crowd_regions_are_left_out_and_low_quality_matches_cover_every_object():
    data = dataset_from_boxes([[(0, 0, 0, 9, 9, True), (0, 100, 100, 106, 106)]])
    assert measure(data).objects == 1
    assert measure(data).unreached == 1
    assert measure(data, match=MatchConfig(low_quality_matches=True)).unreached == 0


def test_images_are_sampled_evenly():
    data = random_dataset(100, images=50)
    sample = coverage(data, model_config=ModelConfig(), match_config=MatchConfig(), image_config=IMAGE, images=10)
    assert len(sample.anchors_P3) == 10
    assert set(sample.image_O) <= set(range(0, 50, 5))


def test_coverage_without_objects():
    measured = measure(dataset_from_boxes([[], []]))
    assert measured.share == 1.0
    assert measured.objects == 0
