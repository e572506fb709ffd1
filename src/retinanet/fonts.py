"""Find fonts that have the characters of a class name, so that no label shows empty boxes.

matplotlib's DejaVu Sans covers Latin, Greek, Cyrillic, Arabic and others. Other characters (Chinese, Japanese, Korean,
Thai, Devanagari) are drawn with fonts of the system. System fonts are searched once, at the first character without a
glyph in DejaVu Sans. A font that the user has chosen draws all characters that it has, in place of DejaVu Sans.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

log = logging.getLogger(__name__)

_INVISIBLE: Final = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
"""Unicode categories of characters that need no glyph: controls, formats and spaces."""
_VARIATION_SELECTORS: Final = range(0xFE00, 0xFE10)
_CJK: Final = ("CJK", "HANGUL", "HIRAGANA", "KATAKANA", "BOPOMOFO", "FULLWIDTH")
"""First words of the Unicode names of characters that the package fonts-noto-cjk covers."""
_UNUSUAL_STYLES: Final = ("bold", "italic", "oblique", "mono", "serif", "black", "light", "thin", "condensed")
_TEST_SIZE: Final = 16
"""Font size in pixels of the test whether a font draws a character."""

reported_packages: Final[set[str]] = set()
"""Packages that a warning of this process named. Each package is named once."""

Font = ImageFont.FreeTypeFont | ImageFont.TransposedFont


def font_fault(path: Path) -> str:
    """Return why a file is no font that can draw text of any size, or an empty text."""
    try:
        ImageFont.truetype(path, _TEST_SIZE)
    except (OSError, ValueError):  # ValueError: bitmaps of one size
        return "is no font" if path.is_file() else "does not exist"
    return ""


def legible_name(name: str, class_id: int, chosen: Path | None = None) -> str:
    """Return a class name, or "class 3" for class id 3 if no font has all characters of the name.

    The first name without a font is logged as a warning, with the package to install.

    Args:
        name: class name.
        class_id: class id from 0.
        chosen: file of the font that the user has chosen.
    """
    missing = None if name.isascii() else next((c for c in _visible(name) if font_path(c, chosen) is None), None)
    if missing is None:
        return name
    _warn_once(_package(missing), name, class_id)
    return f"class {class_id}"


def load_font(texts: Iterable[str], size: int, chosen: Path | None = None) -> Font:
    """Return a font of `size` pixels for texts: DejaVu Sans if it has all characters, else with fonts of the system.

    Args:
        texts: texts to draw.
        size: font size in pixels.
        chosen: file of the font that the user has chosen, in place of DejaVu Sans.
    """
    characters, first = _visible("".join(texts)), chosen or default_path()
    default = ImageFont.truetype(first, size)
    return default if _has_all(first, characters) else _MixedFont(default, chosen)


@lru_cache(maxsize=4096)
def font_path(text: str, chosen: Path | None = None) -> Path | None:
    """Return the file of one font that has all characters of a text, or None: `chosen`, DejaVu Sans, or another one."""
    characters = _visible(text)
    for path in (default_path(),) if chosen is None else (chosen, default_path()):
        if _has_all(path, characters):
            return path
    return next((path for path in system_fonts() if _has_all(path, characters) and _draws(path, characters)), None)


class _MixedFont(ImageFont.TransposedFont):
    """A font that draws each character with the first font that has it. Pillow calls it as it calls `TransposedFont`.

    The upper end of the mask is the ascender of the first font, and all fonts share its baseline.

    Args:
        default: the first font.
        chosen: file of the font that the user has chosen.
    """

    def __init__(self, default: ImageFont.FreeTypeFont, chosen: Path | None = None) -> None:
        super().__init__(default)
        self.chosen = chosen
        self.size = int(default.size)
        self.ascent, _ = default.getmetrics()

    def getmask(self, text: str | bytes, mode: str = "", *_: Any, **__: Any) -> Any:
        """Return the text as a grey mask."""
        del mode
        right, bottom = (int(np.ceil(value)) for value in self._extent(str(text))[2:])
        mask = Image.new("L", (max(1, right), max(1, bottom)))
        draw, x = ImageDraw.Draw(mask), 0.0
        for part, font in self._parts(str(text)):
            draw.text((x, self.ascent), part, fill=255, font=font, anchor="ls")
            x += font.getlength(part)
        return mask.im

    def getbbox(self, text: str | bytes | bytearray, *_: Any, **__: Any) -> tuple[int, int, float, float]:
        """Return xyxy of the text in pixels of its mask."""
        left, top, right, bottom = self._extent(str(text))
        return round(left), round(top), right, bottom

    def getlength(self, text: str | bytes, *_: Any, **__: Any) -> float:
        """Return the width of the text in pixels."""
        return sum(font.getlength(part) for part, font in self._parts(str(text)))

    def _extent(self, text: str) -> tuple[float, float, float, float]:
        boxes, x = [(0.0, float(self.ascent), 0.0, float(self.ascent))], 0.0
        for part, font in self._parts(text):
            x1, y1, x2, y2 = font.getbbox(part, anchor="ls")
            boxes.append((x + x1, self.ascent + y1, x + x2, self.ascent + y2))
            x += font.getlength(part)
        boxes_R4 = np.array(boxes)
        return (0.0, max(0.0, boxes_R4[:, 1].min()), boxes_R4[:, 2].max(), boxes_R4[:, 3].max())

    def _parts(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        return [(part, _truetype(path, self.size)) for part, path in split_by_font(text, self.chosen)]


def split_by_font(text: str, chosen: Path | None = None) -> list[tuple[str, Path]]:
    """Return the parts of a text in order, each with the file of the font that draws it.

    A character without a glyph in DejaVu Sans is drawn with the first system font that has all such characters of the
    text, or else with the first font that has this character. Invisible and combining characters stay with the
    character before them. A font that the user has chosen comes before DejaVu Sans.
    """
    first = chosen or default_path()
    others = [c for c in _visible(text) if not _has_all(first, c)]
    common = font_path("".join(others), chosen) if others else None
    parts: list[tuple[str, Path]] = []
    for character in text:
        if parts and (not _visible(character) or unicodedata.category(character).startswith("M")):
            path = parts[-1][1]
        elif character in others:
            path = common or font_path(character, chosen) or default_path()
        else:
            path = first
        if parts and parts[-1][1] == path:
            parts[-1] = (parts[-1][0] + character, path)
        else:
            parts.append((character, path))
    return parts


@cache
def system_fonts() -> tuple[Path, ...]:
    """Return the font files of the system: upright sans-serif fonts of regular weight first."""
    from matplotlib.font_manager import findSystemFonts

    def unusual(path: Path) -> tuple[int, bool, str, str]:
        name = path.stem.lower().replace("sansserif", "sans")
        return sum(style in name for style in _UNUSUAL_STYLES), "sans" not in name, name, str(path)

    return tuple(sorted((Path(name) for name in findSystemFonts()), key=unusual))


@cache
def default_path() -> Path:
    """Return the file of DejaVu Sans, which matplotlib contains."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _truetype(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@cache
def _code_points(path: Path) -> npt.NDArray[np.uint32]:
    """Return the code points that have a glyph in a font; none for a font that FreeType cannot read."""
    from matplotlib.ft2font import FT2Font

    try:
        return np.fromiter(FT2Font(str(path)).get_charmap(), np.uint32)
    except (OSError, RuntimeError, ValueError):
        return np.zeros(0, np.uint32)


@lru_cache(maxsize=4096)
def _has_all(path: Path, characters: str) -> bool:
    if path == default_path() and characters.isascii():
        return True
    return bool(np.isin([ord(c) for c in characters], _code_points(path)).all())


@cache
def _draws(path: Path, characters: str) -> bool:
    """Return whether Pillow draws characters with a font. It cannot draw bitmaps of one size, as of colour emoji."""
    try:
        font = ImageFont.truetype(path, _TEST_SIZE)
        return all(font.getmask(c).getbbox() is not None for c in characters)
    except (OSError, ValueError):
        return False


def _visible(text: str) -> str:
    return "".join(
        c
        for c in dict.fromkeys(text)
        if unicodedata.category(c) not in _INVISIBLE and ord(c) not in _VARIATION_SELECTORS
    )


def _package(character: str) -> str:
    """Return the package of Debian and Ubuntu with a font for a character."""
    name = unicodedata.name(character, "")
    if name.startswith(_CJK):
        return "fonts-noto-cjk"
    return "fonts-symbola" if unicodedata.category(character).startswith("S") else "fonts-noto-core"


def _warn_once(package: str, name: str, class_id: int) -> None:
    if package in reported_packages:
        return
    reported_packages.add(package)
    log.warning(
        "no font among %d fonts of the system has all characters of the class name %r: such names are drawn as "
        '"class %d". Install a font that has them, for example the package %s of Debian and Ubuntu, or give --font',
        *(len(system_fonts()), name, class_id, package),
    )
