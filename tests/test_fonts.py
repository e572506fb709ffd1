"""Fonts for class names, on machines with and without fonts for their characters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from retinanet import fonts
from retinanet.predict.draw import draw


def make_font(path: Path, characters: str) -> Path:
    """Write a font that draws each character as a full square, and no other character."""
    names = {ord(c): f"glyph{ord(c)}" for c in characters}
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 800), (1000, 800), (1000, 0)):
        pen.lineTo(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), **dict.fromkeys(names.values(), square)})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *names.values()), (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupPost()
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.save(path)
    return path


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that sets the fonts of the system."""

    def forget() -> None:
        for function in (fonts.system_fonts, fonts.font_path):
            function.cache_clear()
        fonts.reported_packages.clear()

    def set_fonts(*paths: Path) -> None:
        forget()
        monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(path) for path in paths])

    yield set_fonts
    forget()


def test_names_that_dejavu_covers_do_not_search_the_system(install: Callable[..., None]) -> None:
    install()
    for name in ("person", "người", "человек", "شخص", "größe", "", "two\nlines", "a\u200db"):
        assert fonts.legible_name(name, 0) == name
        assert fonts.split_by_font(name) == ([(name, fonts.default_path())] if name else [])
    assert not fonts.system_fonts.cache_info().currsize


def test_a_name_without_a_font_becomes_the_class_id_and_one_warning_names_the_package(
    install: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    install()
    with caplog.at_level(logging.WARNING):
        drawn = [fonts.legible_name(name, i) for i, name in enumerate(("car", "行人", "보행자", "คน", "व्यक्ति", "🦩"))]
    assert drawn == ["car", "class 1", "class 2", "class 3", "class 4", "class 5"]
    first, *others = (record.getMessage() for record in caplog.records)
    assert "no font among 0 fonts of the system has all characters of the class name '行人'" in first
    assert 'drawn as "class 1". Install a font that has them, for example the package fonts-noto-cjk' in first
    assert ["fonts-noto-core" in others[0], "fonts-symbola" in others[1], len(others)] == [True, True, 2]


def test_the_font_that_has_all_characters_is_preferred(install: Callable[..., None], tmp_path: Path) -> None:
    install(make_font(tmp_path / "ASans.ttf", "行"), whole := make_font(tmp_path / "BSans.ttf", "行人"))
    assert fonts.legible_name("行人 bike", 0) == "行人 bike"
    assert fonts.split_by_font("行人 bike 0.87") == [("行人 ", whole), ("bike 0.87", fonts.default_path())]


def test_fonts_share_a_text_that_no_font_covers_alone(install: Callable[..., None], tmp_path: Path) -> None:
    install(han := make_font(tmp_path / "Han.ttf", "行"), thai := make_font(tmp_path / "Thai.ttf", "กข"))
    assert fonts.split_by_font("行กข") == [("行", han), ("กข", thai)]


def test_regular_sans_serif_fonts_come_first(install: Callable[..., None]) -> None:
    install(*map(Path, ("a/Serif.ttf", "a/Sans-Bold.ttf", "a/Looped.ttf", "a/Sans-Regular.ttf", "a/SansMono.ttf")))
    assert [path.name for path in fonts.system_fonts()][:2] == ["Sans-Regular.ttf", "Looped.ttf"]


def test_broken_and_empty_fonts_are_left_out(install: Callable[..., None], tmp_path: Path) -> None:
    broken, missing = tmp_path / "broken.ttf", tmp_path / "missing.ttf"
    broken.write_bytes(b"not a font")
    install(broken, missing)
    assert fonts.legible_name("行", 4) == "class 4"


def test_mixed_text_is_drawn_with_both_fonts(install: Callable[..., None], tmp_path: Path) -> None:
    install(make_font(tmp_path / "Han.ttf", "行"))
    font, plain = fonts.load_font(["行a"], 20), fonts.load_font(["a"], 20)
    image = Image.new("L", (60, 40))
    ImageDraw.Draw(image).text((0, 0), "行a", fill=255, font=font)
    pixels = np.asarray(image)
    assert pixels[10, 3:17].min() == 255  # the square: 20 pixels wide, 16 pixels high
    assert pixels[:, 21:].max() > 200  # the letter
    assert font.getlength("行a") == pytest.approx(20 + plain.getlength("a"))
    x1, y1, x2, y2 = ImageDraw.Draw(image).textbbox((0, 0), "行", font=font)
    assert (x1, x2, y2 - y1) == (0, 20, 16)


def test_drawn_images_show_the_characters_or_the_class_id(install: Callable[..., None], tmp_path: Path) -> None:
    def label(name: str) -> bytes:
        detections = sv.Detections(
            xyxy=np.array([[20, 40, 180, 150]], np.float32),
            confidence=np.array([0.9], np.float32),
            class_id=np.array([3]),
            data={"class_name": np.array([name])},
        )
        return draw(Image.new("RGB", (400, 300)), detections).tobytes()

    install()
    assert label("行人") == label("class 3")
    install(make_font(tmp_path / "Han.ttf", "行人"))
    assert label("行人") != label("class 3")


def test_a_chosen_font_draws_what_it_has_and_the_others_draw_the_rest(
    install: Callable[..., None], tmp_path: Path
) -> None:
    own, han = make_font(tmp_path / "own.ttf", "car 1"), make_font(tmp_path / "han.ttf", "行")
    install(han)
    assert fonts.font_fault(own) == ""
    assert fonts.split_by_font("car 1é行", own) == [("car 1", own), ("é", fonts.default_path()), ("行", han)]
    assert fonts.split_by_font("car", own) == [("car", own)]
    assert fonts.legible_name("行", 4, own) == "行"
    chosen, usual = (np.asarray(draw(*_scene("car"), font=font)) for font in (own, None))
    assert (chosen != usual).any()
    assert (np.asarray(draw(*_scene("行"), font=han)) != np.asarray(draw(*_scene("car"), font=han))).any()


def _scene(name: str) -> tuple[Image.Image, sv.Detections]:
    detections = sv.Detections(
        xyxy=np.array([[20.0, 40.0, 80.0, 90.0]]),
        confidence=np.array([0.9]),
        class_id=np.array([0]),
        data={"class_name": np.array([name])},
    )
    return Image.new("RGB", (200, 200)), detections
