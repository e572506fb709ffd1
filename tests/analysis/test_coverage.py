"""What the anchors reach: by hand, against all pairwise IoUs, and at the real size."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from retinanet.analysis.coverage import coverage, input_boxes
from retinanet.config import ImageConfig, MatchConfig, ModelConfig
from retinanet.model import AnchorGenerator
from tests.analysis.made import made_data, scattered

IMAGE = ImageConfig(image_size=384, max_size=512)


def cover(data, *, match=None, image=IMAGE, **model):
    return coverage(data, model_config=ModelConfig(**model), match_config=match or MatchConfig(), image_config=image)


def test_by_hand():
    """One anchor of 32 at stride 8: a square of 32 centred on a position has IoU 1, one of 16 has 256 / 1024 = 0.25."""
    data = made_data([[(0, 48, 48, 80, 80), (1, 192, 192, 208, 208)], []])
    found = cover(data, anchor_scales=(1.0,), anchor_ratios=(1.0,))
    assert found.best_iou_O.tolist() == pytest.approx([1.0, 0.25])
    assert found.level_O.tolist() == [0, 0]
    assert found.reached_O.tolist() == [True, False]
    assert found.unreached == 1
    assert found.per_class() == [("b", 1, 1), ("a", 0, 1)]
    assert found.per_band() == [("small", 1, 1), ("medium", 0, 1)], "256 and 1024 square pixels"
    assert "b 1 of 1" in found.sentence()
    assert (found.anchors_P3.sum(axis=1) == found.anchors_L.sum() // 2).all()
    assert found.anchors_P3[1].tolist()[:2] == [0, 0], "an image without objects has negatives only"
    assert found.positives_L.sum() == found.positives_O.sum() == found.anchors_P3[:, 0].sum()


def test_against_all_pairs():
    data = scattered(60, images=6)
    found = cover(data)
    generator = AnchorGenerator(config=ModelConfig())
    sizes = [(-(-384 // s), -(-512 // s)) for s in generator.strides]
    anchors, _ = generator(sizes, like=torch.zeros(()))
    for o in range(found.objects):
        boxes, _ = input_boxes(data.records[found.image_O[o]], IMAGE)
        iou = box_iou(anchors, boxes)
        g = found.object_O[o]
        assert found.best_iou_O[o] == pytest.approx(iou[:, g].max().item(), abs=1e-5)
        answers = (iou.max(1).values >= 0.5) & (iou.argmax(1) == g)
        assert found.positives_O[o] == answers.sum().item()


def test_boxes_are_measured_at_the_size_of_the_input():
    """The same image at half the size has objects of half the sides, but the same COCO size."""
    data = scattered(20, images=2)
    full, half = cover(data), cover(data, image=ImageConfig(image_size=192, max_size=256))
    np.testing.assert_allclose(full.width_O, 2 * half.width_O, rtol=1e-5)
    assert (full.band_O == half.band_O).all()


def test_crowds_need_no_anchor_and_low_quality_matches_leave_none_out():
    data = made_data([[(0, 0, 0, 9, 9, True), (0, 100, 100, 106, 106)]])
    assert cover(data).objects == 1
    assert cover(data).unreached == 1
    assert cover(data, match=MatchConfig(low_quality_matches=True)).unreached == 0


def test_a_sample_of_many_images():
    data = scattered(100, images=50)
    few = coverage(data, model_config=ModelConfig(), match_config=MatchConfig(), image_config=IMAGE, images=10)
    assert len(few.anchors_P3) == 10
    assert set(few.image_O) <= set(range(0, 50, 5))


def test_nothing_to_reach():
    found = cover(made_data([[], []]))
    assert found.share == 1.0
    assert found.objects == 0
