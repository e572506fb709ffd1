"""Tests of the tables of torchvision's and Detectron2's models."""

import pytest

from retinanet.checkpoint.peers import preprocessing


def test_detectron2_normalisation_is_converted_from_bgr_to_rgb():
    options = preprocessing((51.0, 102.0, 204.0), (25.5, 51.0, 255.0))
    assert options["image_mean"] == pytest.approx((0.8, 0.4, 0.2))
    assert options["image_std"] == pytest.approx((1.0, 0.2, 0.1))
