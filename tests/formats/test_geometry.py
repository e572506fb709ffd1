"""Tests of bounding boxes with hand-worked numbers."""

import math

import pytest

from retinanet.formats.geometry import box_around, box_around_rotated


def test_bounding_box_of_points():
    assert box_around([(3, 4), (1, 9), (2, -5)]) == (1, -5, 3, 9)
    assert box_around([(2, 3)]) == (2, 3, 2, 3)


def test_rotation_by_0_degrees_keeps_the_box():
    assert box_around_rotated(1, 2, 30, 40, 0, about=(99, 99)) == (1, 2, 31, 42)


def test_rotation_by_90_degrees_about_a_corner_and_the_centre():
    """y points down, so the rotation is clockwise: the width extends downwards and the height to the left."""
    assert box_around_rotated(10, 20, 4, 2, 90, about=(10, 20)) == pytest.approx((8, 20, 10, 24))
    assert box_around_rotated(10, 20, 4, 2, 90, about=(12, 21)) == pytest.approx((11, 19, 13, 23))


def test_rotation_of_a_square_by_45_degrees():
    half = math.sqrt(2) / 2
    found = box_around_rotated(0, 0, 1, 1, 45, about=(0.5, 0.5))
    assert found == pytest.approx((0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half))
