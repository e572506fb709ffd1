"""Tests of anchors: hand-worked numbers, and torchvision's anchors at sizes where its strides are exact."""

import copy

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.image_list import ImageList

from retinanet.config import ModelConfig
from retinanet.errors import ConfigError
from retinanet.model import AnchorGenerator, cell_anchors
from retinanet.model.anchors import MAX_STORED


def level_sizes(height, width, levels=(3, 4, 5, 6, 7)):
    return [(-(-height // 2**level), -(-width // 2**level)) for level in levels]


def test_hand_worked_anchors_of_one_position():
    """Size 32 and ratio (height / width) 4 give 16 x 64; ratio 1 and scale 2 give 64 x 64. The order is ratio-major."""
    cells = cell_anchors(32, scales=(1, 2), ratios=(4, 1))
    assert cells.tolist() == [[-8, -32, 8, 32], [-16, -64, 16, 64], [-16, -16, 16, 16], [-32, -32, 32, 32]]


def test_default_anchors_have_the_papers_areas_and_ratios():
    cells = cell_anchors(32, scales=ModelConfig.anchor_scales, ratios=ModelConfig.anchor_ratios)
    width, height = (cells[:, 2:] - cells[:, :2]).T
    torch.testing.assert_close((height / width).reshape(3, 3)[:, 0], torch.tensor([0.5, 1, 2]))
    torch.testing.assert_close(
        (width * height).sqrt().reshape(3, 3)[0], torch.tensor([32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)])
    )


def test_count_and_strides_at_800_by_1344():
    """Centres lie at multiples of the stride. P7 has the stride 128, unlike torchvision's 122 x 114."""
    anchors, per_level = AnchorGenerator(config=ModelConfig())(level_sizes(800, 1344), like=torch.zeros(1))
    assert per_level == (100 * 168 * 9, 50 * 84 * 9, 25 * 42 * 9, 13 * 21 * 9, 7 * 11 * 9)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    start = 0
    for count, stride, (_, width) in zip(per_level, (8, 16, 32, 64, 128), level_sizes(800, 1344), strict=True):
        level = centres[start : start + count].reshape(-1, width, 9, 2)
        torch.testing.assert_close(level[0, 1, 0] - level[0, 0, 0], torch.tensor([stride, 0.0]), atol=1e-3, rtol=0)
        torch.testing.assert_close(level[1, 0, 0] - level[0, 0, 0], torch.tensor([0.0, stride]), atol=1e-3, rtol=0)
        torch.testing.assert_close(level[0, 0], torch.zeros(9, 2), atol=1e-4, rtol=0)
        start += count


def test_anchors_equal_torchvisions_within_its_rounding():
    """Every stride divides 512 x 640. torchvision rounds anchors to whole pixels, so they differ by up to 0.5."""
    scales = [tuple(size * scale for scale in ModelConfig.anchor_scales) for size in ModelConfig.anchor_sizes]
    theirs = TorchvisionAnchors(tuple(scales), ((0.5, 1.0, 2.0),) * 5)
    maps = [torch.zeros(1, 1, *size) for size in level_sizes(512, 640)]
    expected = theirs(ImageList(torch.zeros(1, 3, 512, 640), [(512, 640)]), maps)[0]
    anchors, _ = AnchorGenerator(config=ModelConfig())(level_sizes(512, 640), like=torch.zeros(1))
    assert anchors.shape == expected.shape
    assert (anchors - expected).abs().max() <= 0.5 + 1e-3


def test_anchors_of_other_levels_sizes_and_ratios():
    config = ModelConfig(levels=(2, 3, 4, 5), anchor_sizes=(8, 16, 32, 64), anchor_scales=(1.0,), anchor_ratios=(1.0,))
    anchors, per_level = AnchorGenerator(config=config)(level_sizes(64, 64, (2, 3, 4, 5)), like=torch.zeros(1))
    assert per_level == (256, 64, 16, 4)
    assert (anchors[0, 2:] - anchors[0, :2]).tolist() == [8, 8]
    assert config.anchors_per_position == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (6, 7)}, "start at 2, 3, 4 or 5"),
        ({"levels": (3, 5)}, "consecutive"),
        ({"anchor_sizes": (32.0,)}, "one size for each of the 5 levels"),
        ({"anchor_ratios": (0.0,)}, "above 0"),
        ({"prior": 0.0}, "prior must be above 0 and below 1"),
    ],
)
def test_invalid_anchor_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**options)


def test_anchors_are_stored_for_the_last_sizes():
    """Equal sizes give the same tensor. It can be used in training although prediction computed it first."""
    generator = AnchorGenerator(config=ModelConfig())
    with torch.inference_mode():
        first, _ = generator(level_sizes(64, 96), like=torch.zeros(1))
    again, per_level = generator(level_sizes(64, 96), like=torch.zeros(1))
    assert again is first
    assert not again.is_inference()
    fresh, expected = AnchorGenerator(config=ModelConfig())(level_sizes(64, 96), like=torch.zeros(1))
    assert torch.equal(again, fresh)
    assert per_level == expected
    for height in range(64, 64 + 8 * MAX_STORED, 8):
        generator(level_sizes(height, 64), like=torch.zeros(1))
    assert len(generator._stored) == MAX_STORED
    assert generator(level_sizes(64, 96), like=torch.zeros(1))[0] is not first
    assert not copy.deepcopy(generator)._stored
