"""Test that the styles of classes can be told apart, also by colour-blind readers, and depend on the names alone.

Simulation of colour blindness: linear RGB times a matrix of Machado, Oliveira and Fernandes (2009), severity 1.
Difference of two colours: CIEDE2000, checked against a pair of Sharma, Wu and Dalal (2005).
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from retinanet.class_styles import COLORS, STYLES, ClassStyle, class_styles

Floats = npt.NDArray[np.float64]

VISIONS = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(color: str) -> Floats:
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    t = XYZ @ rgb.clip(0, 1) / np.array([0.95047, 1, 1.08883])
    x, y, z = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(one: Floats, two: Floats) -> float:
    """Return CIEDE2000 of two colours in CIELAB."""
    mean_chroma = (np.hypot(*one[1:]) + np.hypot(*two[1:])) / 2
    g = 0.5 * (1 - np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25**7)))
    (l1, a1, b1), (l2, a2, b2) = one * [1, 1 + g, 1], two * [1, 1 + g, 1]
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    h = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    lightness, c = (l1 + l2) / 2, (c1 + c2) / 2

    def cos(angle: float) -> float:
        return float(np.cos(np.radians(angle)))

    t = 1 - 0.17 * cos(h - 30) + 0.24 * cos(2 * h) + 0.32 * cos(3 * h + 6) - 0.2 * cos(4 * h - 63)
    parts = np.array(
        [
            (l2 - l1) / (1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)),
            (c2 - c1) / (1 + 0.045 * c),
            2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * c * t),
        ]
    )
    angle = 60 * np.exp(-(((h - 275) / 25) ** 2))
    rotation = -2 * np.sqrt(c**7 / (c**7 + 25**7)) * np.sin(np.radians(angle))
    return float(np.sqrt((parts**2).sum() + rotation * parts[1] * parts[2]))


def smallest_difference(one: ClassStyle, two: ClassStyle) -> float:
    colors = [linear(one.color), linear(two.color)]
    return min(difference(*(lab(vision @ rgb) for rgb in colors)) for vision in VISIONS.values())


def test_the_difference_of_colours_is_that_of_the_published_pair() -> None:
    pair = np.array([50, 2.6772, -79.7751]), np.array([50, 0, -82.7485])
    assert difference(*pair) == pytest.approx(2.0425, abs=1e-4)


def test_any_two_of_the_first_twelve_styles_can_be_told_apart() -> None:
    """CIEDE2000 of at least 15 for normal, protan, deutan and tritan readers, or other dashes."""
    for one, two in itertools.combinations(STYLES[:12], 2):
        assert one.dash != two.dash or smallest_difference(one, two) >= 15, (one, two)


def test_text_on_each_colour_has_a_contrast_of_at_least_4_5() -> None:
    for color, casing in COLORS.items():
        low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (color, casing))
        assert (high + 0.05) / (low + 0.05) >= 4.5, color


def test_the_style_of_a_class_depends_on_the_names_alone() -> None:
    names = [f"class {i}" for i in range(9)]
    assert class_styles(names) == class_styles(reversed(names))
    assert {class_styles([name, "other"])[name] for name in names} <= set(STYLES[:8])


@pytest.mark.parametrize("number", [1, 8, 12, len(STYLES)])
def test_no_two_classes_share_a_style_while_styles_are_left(number: int) -> None:
    styles = class_styles(f"class {i}" for i in range(number))
    assert set(styles.values()) == set(STYLES[:number]) if number % 8 == 0 else len(set(styles.values())) == number
    assert set(styles.values()) <= set(STYLES[: -(-number // 8) * 8])  # continuous lines first


def test_more_classes_than_styles_share_styles() -> None:
    styles = class_styles(map(str, range(100)))
    assert len(styles) == 100
    assert set(styles.values()) == set(STYLES)
