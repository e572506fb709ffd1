"""Augmented training images in a report: the pixels and boxes of the samples, and the options in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retinanet.config import AugmentConfig
from retinanet.data.dataset import Sample
from retinanet.images import Frame
from retinanet.report import Report
from retinanet.report.training_images import augmentation_text, training_images_section
from retinanet.types import Target
from tests.report.test_html import assert_self_contained


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "flip 0.5"),
        ({"augment": False}, "none"),
        ({"flip": 0.0}, "none"),
        ({"flip": 0.0, "crop": 0.3, "min_crop": 0.6, "close_augment": 1}, "crop 0.3"),
        (
            {"scale_jitter": (0.8, 1.25), "multi_scale": (320, 480)},
            "flip 0.5; scale_jitter 0.8 to 1.25; multi_scale 320, 480",
        ),
        ({"augment": False, "transform": "a.b:c"}, "transform a.b:c"),
    ],
)
def test_the_augmentation_in_words(options, text):
    assert augmentation_text(AugmentConfig(**options)) == text


def test_images_have_their_size_and_number_of_objects(tmp_path: Path):
    target = Target(
        boxes_G4=torch.tensor([[10.0, 10, 40, 40], [50, 20, 90, 60]]),
        labels_G=torch.tensor([0, 1]),
        crowd_G=torch.tensor([False, True]),
    )
    sample = Sample(
        pixels_3HW=torch.full((3, 80, 1280), 99, dtype=torch.uint8),
        target=target,
        frame=Frame(1280, 80, 1280, 80),
        index=0,
        image_id=1,
    )
    report = Report(title="Test")
    training_images_section(report.section("Images"), [("a.png", sample)], ("<x>", "y"), AugmentConfig())
    page = assert_self_contained(report.write(tmp_path / "r.html").read_text())
    assert "a.png, 1280x80 pixels: 2 objects." in page.text
    assert "The first 1 object" not in page.text
    assert len(page.all("img")) == 1
