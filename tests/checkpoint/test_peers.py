"""Tables of other libraries' models."""

import pytest

from retinanet.checkpoint.peers import preprocessing


def test_means_in_bgr_of_255_become_rgb_of_1():
    found = preprocessing((51.0, 102.0, 204.0), (25.5, 51.0, 255.0))
    assert found["image_mean"] == pytest.approx((0.8, 0.4, 0.2))
    assert found["image_std"] == pytest.approx((1.0, 0.2, 0.1))
