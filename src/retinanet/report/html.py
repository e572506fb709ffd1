"""Build a report: one self-contained HTML file with text, tables, figures (SVG), images (JPEG) and interactive parts.

A report needs no network and no other file, and supports small screens and dark mode. All text from outside (class
names, file names, options) is escaped. The scripts are the files of `report/scripts/`; the Content-Security-Policy of
the report allows only these, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from retinanet.files import write_atomically
from retinanet.fonts import default_path, font_path
from retinanet.report.figures import CSS_COLOURS
from retinanet.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BYTES: Final = 10_000_000
"""Maximum size of a report in bytes, small enough for e-mail. Images beyond the limit are left out and counted."""
MAX_SIDE: Final = 640
"""Longest side of an image in the report, pixels."""
RESERVED: Final = 1_500_000
"""Bytes of `MAX_BYTES` reserved for everything other than images."""


@dataclass(frozen=True, kw_only=True)
class ReportImage:
    """An image of a gallery, with its text alternative `alt` for screen readers and its caption."""

    image: Image.Image
    alt: str
    caption: str


@dataclass(frozen=True)
class _Block:
    kind: Literal["text", "table", "figure", "gallery", "details", "markup", "interactive"]
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    markup: Markup | str = ""
    images: Sequence[tuple[Markup, str, str]] = ()
    small: bool = False
    data: Markup | str = ""


@dataclass
class Section:
    """A section of a report: a heading, and blocks in the order in which they were added."""

    title: str
    report: Report
    blocks: list[_Block] = field(default_factory=list)

    def text(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self.blocks.append(_Block("text", text=text))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> None:
        """Add a table. The first column holds names, the other columns hold numbers.

        Raises:
            ValueError: a row and `head` have different numbers of cells.
        """
        for number, row in enumerate(rows):
            if len(row) != len(head):
                raise ValueError(f"row {number} of the table: expected {len(head)} cells, found {len(row)}")
        self.blocks.append(
            _Block("table", text=caption, head=head, rows=[[_cell(value) for value in row] for row in rows])
        )

    def figure(self, figure: Figure, *, alt: str, caption: str = "") -> None:
        """Add a figure as SVG. Its colours follow the light or dark mode of the page."""
        self.report.figures += 1
        self.blocks.append(
            _Block("figure", text=caption, markup=svg(figure, alt=alt, prefix=f"f{self.report.figures}"))
        )

    def gallery(self, images: Sequence[ReportImage], *, small: bool = False) -> None:
        """Add images, reduced to `MAX_SIDE`. Images beyond the size limit of the report are left out and counted.

        Args:
            images: images with their captions.
            small: whether to show the images small, three or four in a row.
        """
        embedded: list[tuple[Markup, str, str]] = []
        for image in images:
            data = jpeg(image.image)
            if len(data) > self.report.free_bytes:
                break
            self.report.image_bytes += len(data)
            embedded.append((Markup("data:image/jpeg;base64,") + Markup(data), image.alt, image.caption))  # noqa: S704
        self.blocks.append(_Block("gallery", images=embedded, small=small))
        if len(embedded) < len(images):
            number = len(images) - len(embedded)
            self.text(f"{number} more images are left out, because the file would exceed {MAX_BYTES / 1e6:g} MB.")

    def details(self, summary: str, text: str) -> None:
        """Add preformatted text, such as a command or a file, that is hidden until the user opens `summary`."""
        self.blocks.append(_Block("details", head=[summary], text=text))

    def markup(self, markup: Markup) -> None:
        """Add HTML of a template, see `render`."""
        self.report.image_bytes += len(markup)
        self.blocks.append(_Block("markup", markup=markup))

    def commands(self, commands: Sequence[tuple[str, str]], *, title: str = "") -> None:
        """Add command lines, each as a reason and a command with a button that copies it."""
        self.interactive("copy", render("commands.html", commands=commands, title=title), {})

    def interactive(self, name: str, markup: Markup, data: Mapping[str, Any], *, scripts: Sequence[str] = ()) -> None:
        """Add an interactive part: an element `<div data-part=name>` and the data of its script.

        The script `report/scripts/NAME.js` registers a function for its parts:
        `parts.NAME = (root, data) => {...}`, called with the element and the data once the report is loaded.

        Args:
            name: name of the script, without its suffix.
            markup: content of the element before the script runs. It must be useful without the script.
            data: values that JSON can hold.
            scripts: further scripts that the script needs, such as the calculations that it shares with other parts.
        """
        for script in (*scripts, name):
            if script not in self.report.scripts:
                self.report.scripts.append(script)
        block = _Block("interactive", text=name, markup=markup, data=json_text(data))
        self.report.image_bytes += len(block.markup) + len(block.data)
        self.blocks.append(block)


@dataclass
class Report:
    """A report: a title, a summary in a few sentences, then sections.

    Args:
        title: title of the page.
        subtitle: line below the title.
        in_short: sentences of the summary "In short".
        first: content of the first screen, above the summary and without a heading.
        sections: sections of the report; `section` adds one.
        figures: number of figures so far; numbers the ids of figures.
        image_bytes: bytes of embedded images and interactive parts so far.
        scripts: names of the embedded scripts, without their suffixes, in the order in which they run.
    """

    title: str
    subtitle: str = ""
    in_short: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    first: Section = field(init=False)
    figures: int = 0
    image_bytes: int = 0
    scripts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = Section("", self)

    @property
    def free_bytes(self) -> int:
        """Number of bytes that further images may have."""
        return max(0, MAX_BYTES - RESERVED - self.image_bytes)

    def section(self, title: str) -> Section:
        """Add a section and return it."""
        section = Section(title, self)
        self.sections.append(section)
        return section

    def html(self) -> str:
        """Return the report as HTML."""
        footer = f"Made by retinanet {__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M}."
        sections = [section for section in self.sections if section.blocks]
        light, dark = (_css_variables(shade) for shade in (0, 1))
        scripts = [script_text(name) for name in ("parts", *self.scripts, "start")] if self.scripts else []
        page = render(
            "template.html",
            report=self,
            sections=sections,
            footer=footer,
            style=Markup(read_file("style.css")),  # noqa: S704 (a file of this package)
            light=light,
            dark=dark,
            scripts=[Markup(script) for script in scripts],  # noqa: S704 (files of this package)
            script_hashes=[_csp_hash(script) for script in scripts],
        )
        return str(page)

    def write(self, path: Path) -> Path:
        """Write the report to `path` atomically, so that `path` never holds a partial file. Return `path`."""
        write_atomically(path, self.html())
        return path


def render(template: str, **values: Any) -> Markup:
    """Return the HTML of the template `report/TEMPLATE`. Values are escaped unless they are `Markup`."""
    return Markup(_environment().get_template(template).render(**values))  # noqa: S704 (templates escape values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("retinanet", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def script_text(name: str) -> str:
    """Return the script `report/scripts/NAME.js`."""
    return read_file(f"scripts/{name}.js")


def read_file(name: str) -> str:
    """Return the text of the file `report/NAME`."""
    return (files("retinanet.report") / name).read_text(encoding="utf-8")


def json_text(data: Mapping[str, Any]) -> Markup:
    """Return data as JSON for a `<script type="application/json">` element.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", r"\u003c"))  # noqa: S704 ("</script>" in a class name does not end the element)


def _csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def jpeg(image: Image.Image) -> str:
    """Return the image as JPEG in base64, reduced to at most `MAX_SIDE` pixels on its longest side."""
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80, optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")


def svg(figure: Figure, *, alt: str, prefix: str) -> Markup:
    """Return a figure as an <svg> element for an HTML page.

    Args:
        figure: figure in the colours of `figures.CSS_COLOURS`, which are replaced by CSS variables.
        alt: description of the figure for screen readers.
        prefix: prefix of all ids in the SVG, so that ids are unique in the page.
    """
    import matplotlib as mpl
    from matplotlib.text import Text

    for label in figure.findobj(Text):
        font = font_path(label.get_text())
        if font not in {None, default_path()}:  # the layout needs the width of characters that DejaVu Sans lacks
            properties = label.get_fontproperties().copy()
            properties.set_file(str(font))
            label.set_fontproperties(properties)
    data = io.StringIO()
    # fonttype none: text stays text, in the font of the page. Outlines would be ten times as large.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the browser has its own fonts
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
        raise ValueError("expected a viewBox in the SVG that matplotlib wrote, found none")
    body = text[text.index(">") + 1 :]
    head = f'<svg role="img" aria-label="{escape(alt)}" {view_box.group()}>'
    return Markup(head + body.strip())  # noqa: S704 (matplotlib escapes text)


def _css_variables(shade: int) -> str:
    return " ".join(f"--{name}: {shades[shade]};" for name, shades in CSS_COLOURS.items())


def _cell(value: object) -> str:
    """Return a cell as text: floats with three decimals, integers with thousands separators.

    A dash stands for a missing value: None, NaN, or -1, COCO's value for metrics without objects.
    """
    if value is None or (isinstance(value, float) and (value != value or value == -1)):  # noqa: PLR0124
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
