"""Choose how the boxes of each class are drawn: colour, casing and dashes. Drawn images and the page share the styles.

The colours follow the palette of Okabe and Ito, moved so that any two of them also differ for readers without one kind
of cone: CIEDE2000 of at least 15 for normal vision and for full protanopia, deuteranopia and tritanopia (simulated
after Machado et al. 2009). Further classes have the same colours with other dashes. A light or dark casing around each
line keeps the line visible on any image.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

DARK: Final = "#000000"
LIGHT: Final = "#ffffff"
COLORS: Final[Mapping[str, str]] = {
    "#0f6390": LIGHT,
    "#df9b00": DARK,
    "#009e73": DARK,
    "#c25400": LIGHT,
    "#88cbf4": DARK,
    "#ab70da": DARK,
    "#fff451": DARK,
    "#000000": LIGHT,
}
"""Colour -> colour of its casing, which is also the colour of text on it. The contrast of the two is at least 4.5:1."""
DASHES: Final[tuple[tuple[int, ...], ...]] = ((), (6, 4), (2, 3))
"""Lengths of line and gap, in line widths. Empty: a continuous line. In a gap, the casing remains visible."""


@dataclass(frozen=True, slots=True)
class ClassStyle:
    """How the boxes of a class are drawn.

    Args:
        color: colour of the line, "#rrggbb".
        casing: colour around the line and of text on `color`, "#rrggbb".
        dash: lengths of line and gap, in line widths; empty for a continuous line.
    """

    color: str
    casing: str
    dash: tuple[int, ...]


STYLES: Final = tuple(ClassStyle(color, casing, dash) for dash in DASHES for color, casing in COLORS.items())
"""All styles. Those with continuous lines come first."""


def class_styles(names: Iterable[str]) -> dict[str, ClassStyle]:
    """Return the style of each class.

    A class has the style that its name stands for, in every model and in every order of the classes. If two names
    stand for the same style, the second name in alphabetical order has the next free style. Classes beyond
    `len(STYLES)` share styles.

    Args:
        names: names of all classes.
    """
    styles: dict[str, ClassStyle] = {}
    free: list[ClassStyle] = []
    for name in sorted(set(names)):
        free = free or list(STYLES)
        same_dash = [style for style in free if style.dash == free[0].dash]
        start = zlib.crc32(name.encode()) % len(COLORS)
        order = [*COLORS][start:] + [*COLORS][:start]
        styles[name] = min(same_dash, key=lambda style: order.index(style.color))
        free.remove(styles[name])
    return styles
