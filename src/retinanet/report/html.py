"""One self-contained HTML file: text, tables, figures as SVG and images as JPEG, all inside it.

It needs no network, no script and no other file, reads well on a phone and in the dark, and every word that comes
from outside (class names, file names, options) is escaped.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from retinanet.files import write_atomically
from retinanet.report.figures import CSS_COLOURS
from retinanet.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BYTES: Final = 10_000_000
"""A report stays below this, so that it can be sent by mail; images that do not fit are left out and counted."""
MAX_SIDE: Final = 640
"""Longest side of an image in the report, pixels."""
RESERVED: Final = 1_500_000
"""Bytes of `MAX_BYTES` kept for what is not images."""


@dataclass(frozen=True, kw_only=True)
class ReportImage:
    """An image of a gallery: `alt` says what is on it to who cannot see it, `caption` stands below it."""

    image: Image.Image
    alt: str
    caption: str


@dataclass(frozen=True)
class _Block:
    kind: Literal["text", "table", "figure", "gallery", "details"]
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    markup: Markup | str = ""
    images: Sequence[tuple[Markup, str, str]] = ()
    small: bool = False


@dataclass
class Section:
    """A heading and what stands below it, in the order in which it was added."""

    title: str
    report: Report
    blocks: list[_Block] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self.blocks.append(_Block("text", text=text))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> None:
        """Add a table. The first column holds names, the others numbers.

        Raises:
            ValueError: a row with another number of cells than `head`.
        """
        for number, row in enumerate(rows):
            if len(row) != len(head):
                raise ValueError(f"row {number} of the table needs {len(head)} cells, found {len(row)}")
        self.blocks.append(
            _Block("table", text=caption, head=head, rows=[[_cell(value) for value in row] for row in rows])
        )

    def figure(self, figure: Figure, *, alt: str, caption: str = "") -> None:
        """Add a drawing as SVG that takes its colours from the page, light or dark."""
        self.report.figures += 1
        self.blocks.append(
            _Block("figure", text=caption, markup=svg(figure, alt=alt, prefix=f"f{self.report.figures}"))
        )

    def gallery(self, images: Sequence[ReportImage], *, small: bool = False) -> None:
        """Add images, made smaller where they need to be, as many as the size of the report allows.

        Args:
            images: to show.
            small: cut-outs, to stand three or four in a row.
        """
        kept: list[tuple[Markup, str, str]] = []
        for image in images:
            data = jpeg(image.image)
            if self.report.image_bytes + len(data) > MAX_BYTES - RESERVED:
                break
            self.report.image_bytes += len(data)
            kept.append((Markup("data:image/jpeg;base64,") + Markup(data), image.alt, image.caption))  # noqa: S704
        self.blocks.append(_Block("gallery", images=kept, small=small))
        if len(kept) < len(images):
            self.text(f"{len(images) - len(kept)} more images are left out to keep this file small.")

    def details(self, summary: str, text: str) -> None:
        """Add text as it stands (a command, a file), folded away below `summary`."""
        self.blocks.append(_Block("details", head=[summary], text=text))


@dataclass
class Report:
    """A report in the making: a title, a few plain sentences first, then sections.

    Args:
        title: heading of the page.
        subtitle: one line below it.
        in_short: the sentences that a reader who stops there should take along.
    """

    title: str
    subtitle: str = ""
    in_short: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    figures: int = 0
    image_bytes: int = 0

    def section(self, title: str) -> Section:
        """Begin a section."""
        section = Section(title, self)
        self.sections.append(section)
        return section

    def html(self) -> str:
        """Return the whole page."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("retinanet", "report"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        made = f"Made by retinanet {__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M}."
        sections = [section for section in self.sections if section.blocks]
        light, dark = (_css_variables(shade) for shade in (0, 1))
        return environment.get_template("template.html").render(
            report=self, sections=sections, made=made, light=light, dark=dark
        )

    def write(self, path: Path) -> Path:
        """Write the page beside `path` and rename it, so that it is whole or not there. Return `path`."""
        write_atomically(path, self.html())
        return path


def jpeg(image: Image.Image) -> str:
    """Return the image as JPEG in base64, its longest side at most `MAX_SIDE` pixels."""
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80, optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")


def svg(figure: Figure, *, alt: str, prefix: str) -> Markup:
    """Return a drawing as an <svg> element to stand within a page.

    Args:
        figure: drawn with the colours of `figures.CSS_COLOURS`, which become CSS variables.
        alt: what it shows, in words.
        prefix: put before every id, so that drawings of one page do not get at each other's clip paths.
    """
    import matplotlib as mpl

    data = io.StringIO()
    # Text as text takes the reader's font and is a tenth of the size of text as outlines.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = data.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'\bhref="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r"font: [^;\"]*?([\d.]+)px[^;\"]*", r"font-size: \1px", text)
    for name, shades in CSS_COLOURS.items():
        text = re.sub(re.escape(shades[0]), f"var(--{name})", text, flags=re.IGNORECASE)
    view_box = re.search(r'viewBox="[^"]*"', text)
    if view_box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    body = text[text.index(">") + 1 :]
    head = f'<svg role="img" aria-label="{escape(alt)}" {view_box.group()}>'
    return Markup(head + body.strip())  # noqa: S704 (matplotlib escapes what it is given)


def _css_variables(shade: int) -> str:
    return " ".join(f"--{name}: {shades[shade]};" for name, shades in CSS_COLOURS.items())


def _cell(value: object) -> str:
    """Return a number as text: three decimals, thousands apart; a dash where there is none (None, or COCO's -1)."""
    if value is None or (isinstance(value, float) and (value != value or value == -1)):  # noqa: PLR0124
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
