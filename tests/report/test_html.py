"""Test the HTML of reports: self-contained, all outside text escaped, all images with a text alternative."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from retinanet.report import Report, ReportImage, figures, html

NASTY = "<b>\"&' </svg><script>alert(1)</script> $x^2$ {{ 7*7 }}"
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Collect the elements and the text of a page, and fail on tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def assert_self_contained(text: str) -> Page:
    """Parse a page, check that it loads nothing from outside and describes its images, and return it."""
    page = Page(text)
    assert not re.search(r"https?:|//\w|file:|@import", re.sub(r"(base64,|sha256-)[\w+/=]+", "", text))
    for _, attributes in page.elements:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#"))
        for reference in re.findall(r"url\(([^)]*)", " ".join(str(v) for v in attributes.values())):
            assert reference.startswith("#")
    assert all(attributes.keys() <= {"type"} for attributes in page.all("script"))
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    used = {v[1:] for _, a in page.elements for v in [a.get("href")] if v and v.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert used <= set(ids)
    for image in page.all("img"):
        assert image["alt"]
    for drawing in page.all("svg"):
        assert drawing["role"] == "img"
        assert drawing["aria-label"]
    return page


def full_report() -> Report:
    report = Report(title=f"Title {NASTY}", subtitle=NASTY, in_short=[NASTY])
    section = report.section(NASTY)
    section.text(NASTY)
    section.table(
        [NASTY, "n"], [[NASTY, 1234], ["nothing", -1.0], ["missing", None], ["share", 0.12345]], caption=NASTY
    )
    section.figure(figures.class_bars({NASTY: (0.4, 0.6), "other": (0.5, 0.7)}), alt=NASTY, caption=NASTY)
    section.figure(figures.loss_curves({"total": ([1, 2], [3.0, 2.0])}), alt="losses")
    section.gallery([ReportImage(image=Image.new("RGB", (2000, 1000), "red"), alt=NASTY, caption=NASTY)])
    section.details(NASTY, NASTY)
    return report


def test_a_report_is_self_contained_and_escapes_outside_text(tmp_path: Path) -> None:
    path = full_report().write(tmp_path / "new" / "report.html")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = assert_self_contained(text)
    assert not page.all("b")
    assert page.text.count(NASTY) == 13  # everywhere except in alt texts, unchanged and as text
    assert [a["aria-label"] for a in page.all("svg")] == [NASTY, "losses"]
    assert page.all("img")[0]["alt"] == NASTY
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_numbers_in_table_cells() -> None:
    page = Page(full_report().html())
    for cell in ("1,234", "–", "0.123"):
        assert cell in page.text
    assert "-1.0" not in page.text


def test_a_table_row_with_too_few_cells_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 1 of the table: expected 2 cells, found 1"):
        Report(title="t").section("s").table(["a", "b"], [["x", 1], ["y"]])


def test_large_images_are_reduced_and_keep_their_aspect_ratio() -> None:
    image = Image.open(io.BytesIO(base64.b64decode(html.jpeg(Image.new("L", (2000, 1000), 200)))))
    assert (image.format, image.size) == ("JPEG", (640, 320))
    small = Image.open(io.BytesIO(base64.b64decode(html.jpeg(Image.new("RGBA", (20, 10))))))
    assert small.size == (20, 10)


def test_images_beyond_the_size_limit_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    image = ReportImage(image=Image.fromarray(noise), alt="noise", caption="noise")
    monkeypatch.setattr(html, "MAX_BYTES", html.RESERVED + 2 * len(html.jpeg(image.image)) + 10)
    report = Report(title="t")
    report.section("s").gallery([image] * 5)
    page = Page(report.html())
    assert len(page.all("img")) == 2
    assert "3 more images are left out" in page.text


def test_figures_use_the_css_colours_of_the_page() -> None:
    text = full_report().html()
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        assert "var(--series-1)" in drawing
        assert "var(--ink)" in drawing
        assert not re.findall(r"#(?!f\d)[0-9a-f]{6}", drawing)  # a fixed colour could be invisible in dark mode
    for name, shades in figures.CSS_COLOURS.items():
        for shade in shades:
            assert f"--{name}: {shade};" in text


@pytest.mark.parametrize(("shade", "page"), [(0, "#ffffff"), (1, "#1d2126")])
def test_colours_have_enough_contrast_with_the_page(shade: int, page: str) -> None:
    def luminance(colour: str) -> float:  # WCAG 2.2, relative luminance
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    for name, shades in figures.CSS_COLOURS.items():
        if name != "line":
            assert contrast(shades[shade], page) >= (4.5 if name in {"ink", "muted"} else 3)


def test_an_interactive_part_contains_its_data_and_allows_only_its_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"parts": "const parts = {};", "shown": "parts.shown = () => {};", "start": "parts.shown();"}
    monkeypatch.setattr(html, "script_text", lambda name: texts[name])
    report = Report("Two parts")
    for name in (NASTY, "é"):
        report.section("Part").interactive(
            "shown", Markup("<p>without script</p>"), {"name": name, "numbers": [1, 0.5]}
        )
    page = assert_self_contained(report.html())

    data = re.findall(r'<script type="application/json">(.*?)</script>', report.html())
    assert [json.loads(text) for text in data] == [{"name": n, "numbers": [1, 0.5]} for n in (NASTY, "é")]
    assert re.findall(r"<script>(.*?)</script>", report.html()) == list(texts.values())  # each script once
    policy = next(str(meta["content"]) for meta in page.all("meta") if "http-equiv" in meta)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts.values()]
    assert policy.endswith("; script-src " + " ".join(f"'sha256-{value}'" for value in hashes))


def test_a_report_without_interactive_parts_has_no_script() -> None:
    report = Report("No part")
    report.section("Text").text("text")
    assert "script" not in report.html()


def test_data_with_a_number_that_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Report("r").section("s").interactive("shown", Markup(""), {"value": float("nan")})
