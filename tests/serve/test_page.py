"""Test the web page in Chromium: mouse, keyboard, downloads, wide and narrow screens."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from PIL import Image, ImageColor

from retinanet.class_styles import class_styles
from retinanet.serve.app import PAGE
from tests.browser import browser
from tests.serve.fakes import CLASSES, Server, expected, png
from tests.serve.rounding import rounded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("max_upload_mb=0.5", model="1.onnx") as running:
        yield running


class Visit:
    """Open the page, and record the URLs that it requests and the errors that it logs."""

    def __init__(self, browser: Browser, server: Server, **options: Any) -> None:
        self.context = browser.new_context(viewport=options.pop("viewport", {"width": 1200, "height": 800}), **options)
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.goto(server.url)
        self.page.locator("#classes li").first.wait_for()

    def add(self, *files: tuple[str, bytes]) -> None:
        payload = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
        self.page.set_input_files("#files", payload)  # type: ignore[arg-type]
        self.page.locator("#count", has_text=re.compile("detection|:")).wait_for()

    def count(self) -> str:
        return self.page.locator("#count").inner_text()

    def slide(self, to: float) -> None:
        self.page.locator("#threshold").fill(str(to))

    def colors(self) -> set[tuple[int, int, int]]:
        """Return the colours on the canvas after the next two frames."""
        pixels = self.page.evaluate(
            """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
                const c = document.querySelector("#canvas");
                const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
                const found = new Set();
                for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255)
                    found.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
                done([...found]);
            })))"""
        )
        return {(p >> 16, p >> 8 & 255, p & 255) for p in pixels}


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visit]:
    visit = Visit(browser, server)
    yield visit
    errors = [
        error for error in visit.errors if "status of 4" not in error
    ]  # Chromium logs each answer with status 415
    assert not errors
    assert all(url.startswith((server.url, "blob:", "data:")) for url in visit.requests)
    visit.context.close()


CELL, PLATELET = (ImageColor.getrgb(class_styles(CLASSES)[name].color) for name in CLASSES[:2])
"""Colours of the first and the second class."""


@pytest.mark.slow
def test_slider_and_classes_filter_without_another_request(visit: Visit):
    visit.add(("a.png", png(200, 640, 480)))
    assert visit.count() == "2 detections"  # scores 0.9, 0.6 and 0.3; the slider is at 0.5
    assert {CELL, PLATELET, (200, 0, 0)} <= visit.colors()
    requests = len([url for url in visit.requests if "/v1/" in url])
    visit.slide(0.25)
    assert visit.count() == "3 detections"
    visit.slide(0.7)
    assert visit.count() == "1 detection"
    assert PLATELET not in visit.colors()
    visit.slide(0.25)
    visit.page.get_by_role("checkbox", name="cell").first.uncheck()
    assert visit.count() == "2 detections"
    assert CELL not in visit.colors()
    assert visit.page.locator("#classes .number").all_inner_texts() == ["1", "1", "1"]
    visit.page.click("#none")
    assert visit.count() == "0 detections"
    visit.page.click("#all")
    assert visit.page.locator("#found li").count() == 3
    assert "640 × 480" in visit.page.locator("#timing").inner_text()
    label = visit.page.locator("#canvas").get_attribute("aria-label")
    assert label == "a.png: 3 detections: 1 cell, 1 platelet, 1 white, cell"
    assert len([url for url in visit.requests if "/v1/" in url]) == requests


@pytest.mark.slow
def test_tuned_thresholds_replace_the_slider(visit: Visit):
    page = visit.page
    tuned = {"aim": "recall=0.9", "thresholds": [0.95, 0.5, 0.01], "sentence": "A promise."}
    page.route("**/v1/model", lambda route: route.fulfill(json={**route.fetch().json(), "tuned": tuned}))
    page.reload()
    visit.add(("a.png", png(200, 640, 480)))  # scores 0.9, 0.6 and 0.3
    numbers = page.locator("#classes .number")
    assert numbers.all_inner_texts() == ["1", "1", "0"]
    assert page.locator("#ticks i").count() == 3
    page.get_by_label("Tuned thresholds (recall=0.9)").check()
    assert numbers.all_inner_texts() == ["0", "1", "1"]
    assert page.locator("#threshold").is_disabled()
    assert page.locator("#threshold-value").inner_text() == "tuned"
    assert any("threshold=0.01&" in url for url in visit.requests), "the page needs the detections above 0.01"
    page.get_by_label("Tuned thresholds").uncheck()
    assert numbers.all_inner_texts() == ["1", "1", "0"]


@pytest.mark.slow
def test_without_tuned_thresholds_the_page_does_not_offer_them(visit: Visit):
    assert visit.page.locator("#tuned-line").is_hidden()
    assert visit.page.locator("#ticks").is_hidden()


@pytest.mark.slow
def test_several_images_and_an_error_for_an_invalid_file(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200)), ("b.png", png(100)), ("no.png", b"no image"))
    page.locator(".thumb.failed").wait_for()
    page.locator(".thumb.done").nth(1).wait_for()
    alert = page.get_by_role("alert")
    assert "no.png: not a readable image" in alert.inner_text()
    assert page.get_by_role("option").count() == 3
    page.get_by_role("option").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("option", selected=True).get_attribute("aria-label") == "b.png, 2 detections"
    page.keyboard.press("End")
    assert (
        page.get_by_role("option", selected=True)
        .get_attribute("aria-label")
        .startswith("no.png, no.png: not a readable")
    )  # type: ignore[union-attr]
    alert.get_by_text("dismiss").click()
    assert alert.inner_text() == ""
    page.set_input_files("#files", [{"name": "big.png", "mimeType": "image/png", "buffer": bytes(600_000)}])
    page.get_by_text("big.png: the file has 0.6 MB, the limit of the server is 0.5 MB").wait_for()


@pytest.mark.slow
def test_paste_drop_and_camera(visit: Visit):
    page = visit.page
    for kind, target in (("paste", "document.body"), ("drop", "document.body")):
        page.evaluate(
            """([kind, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], kind + ".png", {type: "image/png"}));
                const options = {bubbles: true, cancelable: true};
                document.body.dispatchEvent(kind === "paste"
                    ? new ClipboardEvent("paste", {...options, clipboardData: data})
                    : new DragEvent("drop", {...options, dataTransfer: data}));
            }""",
            [kind, list(png(100))],
        )
        assert target
    page.locator(".thumb.done").nth(1).wait_for()
    assert [label.split(",")[0] for label in labels(page)] == ["paste.png", "drop.png"]
    page.click("#camera")
    page.locator("#camera-dialog").wait_for()
    page.click("#shoot")
    page.locator(".thumb.done").nth(2).wait_for()
    assert labels(page)[2].startswith("camera ")
    assert not page.locator("#camera-dialog").is_visible()


def labels(page: Page) -> list[str]:
    return [option.get_attribute("aria-label") or "" for option in page.get_by_role("option").all()]


@pytest.mark.slow
def test_downloads_contain_the_shown_detections(visit: Visit):
    page = visit.page
    visit.add(("=a,1.png", png(200)), ("b.png", png(100)))
    page.locator(".thumb.done").nth(1).wait_for()

    def downloaded(button: str) -> bytes:
        with page.expect_download() as waiting:
            page.click(button)
        return Path(waiting.value.path()).read_bytes()

    content = json.loads(downloaded("#json"))
    assert content["threshold"] == 0.5
    detections = rounded(expected(200)[:2])
    assert content["images"][0] == {"name": "=a,1.png", "width": 64, "height": 48, "detections": detections}
    assert content["pictures"] == content["images"]  # old name of the field
    rows = list(csv.reader(io.StringIO(downloaded("#csv").decode())))
    assert rows[0] == ["path", "x1", "y1", "x2", "y2", "class", "score"]
    assert rows[1] == [
        "'=a,1.png",
        "0",
        "0",
        "25",
        "10",
        "cell",
        "0.9",
    ]  # the apostrophe keeps a spreadsheet from reading a formula
    assert [row[0] for row in rows[1:]] == ["'=a,1.png"] * 2 + ["b.png"] * 2
    image = Image.open(io.BytesIO(downloaded("#save-image")))
    assert (image.format, image.size) == ("JPEG", (64, 48))
    visit.slide(0.95)
    assert list(csv.reader(io.StringIO(downloaded("#csv").decode())))[1:] == [
        ["'=a,1.png", *[""] * 6],
        ["b.png", *[""] * 6],
    ]


@pytest.mark.slow
def test_explain_a_place_by_mouse_and_by_keyboard(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200, 640, 480)))
    page.get_by_role("button", name="Explain a miss").click()
    assert page.locator("#explain").get_attribute("aria-pressed") == "true"
    page.locator("#canvas").click()
    page.locator("#why").wait_for()
    assert page.locator("#why-levels > li").count() == 5
    assert [level.inner_text() for level in page.locator(".level").all()] == ["P3", "P4", "P5", "P6", "P7"]
    assert re.match(r"Detected here|No detection here", page.locator("#why-summary").inner_text())
    assert page.locator(".proposal.on").count() == 1
    page.locator(".proposal").first.hover()
    assert "threshold 0.5" in page.locator(".proposal.on .why").inner_text()
    (url,) = [url for url in visit.requests if "explain" in url]
    assert "x=320.00&y=240.00&threshold=0.5000" in url
    visit.slide(0.3)
    assert not page.locator("#why").is_visible()
    page.locator("#canvas").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#why").wait_for()
    last = [url for url in visit.requests if "explain" in url][-1]
    assert float(re.search(r"x=([\d.]+)", last)[1]) > 320  # type: ignore[index]
    assert "y=240.00&threshold=0.3000" in last
    page.keyboard.press("Escape")
    assert not page.locator("#why").is_visible()
    page.keyboard.press("e")
    assert page.locator("#explain").get_attribute("aria-pressed") == "false"


@pytest.mark.slow
def test_explain_objects_by_mouse_and_by_keyboard(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200, 640, 480)))
    page.get_by_role("button", name="Explain a miss").click()
    canvas = page.locator("#canvas").bounding_box()
    assert canvas is not None
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2

    def requests() -> list[str]:
        return [unquote(url) for url in visit.requests if "explain" in url]

    def causes(count: int) -> list[str]:
        page.wait_for_function(
            "n => { const c = [...document.querySelectorAll('.cause')].map(e => e.textContent);"
            " return c.length === n && c.every(text => text && text !== '…'); }",
            arg=count,
        )
        return page.locator(".cause").all_inner_texts()

    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 100, y + 80, steps=3)
    assert (0, 0, 0) in visit.colors()  # the border of the box
    page.mouse.up()
    page.locator("#objects").wait_for()
    assert requests() == []  # the class is not chosen yet
    page.locator("#object-list select").select_option("white, cell")
    (cause,) = causes(1)
    assert cause in {"no anchor", "anchors ignored", "low scores", "below the threshold"}
    assert page.locator(".why-text").first.inner_text().startswith(f"Missed, {cause}: ")
    assert page.locator(".why-text").nth(1).inner_text().startswith("What can help: ")
    (url,) = requests()
    assert re.search(r"box=320\.00,240\.00,\d+\.\d\d,\d+\.\d\d&class=white,\+cell$", url)

    page.locator("#canvas").focus()
    page.keyboard.press("b")
    for key in ("ArrowLeft", "ArrowUp"):
        page.keyboard.press(f"Shift+{key}")
    page.keyboard.press("Enter")
    causes(2)
    first, second = re.findall(r"box=([\d.,]+)&class=white,\+cell", requests()[-1])
    assert first.startswith("320.00,240.00,")
    assert second.endswith(",320.00,240.00")
    visit.slide(0.3)
    causes(2)
    assert "threshold=0.3000" in requests()[-1]
    page.get_by_role("button", name="Remove object 1").click()
    causes(1)
    assert re.findall(r"box=([\d.,]+)", requests()[-1]) == [second]

    page.keyboard.press("e")
    assert not page.locator("#objects").is_visible()
    page.keyboard.press("e")
    assert page.locator("#objects").is_visible()  # marked objects are kept
    page.locator("#canvas").click()
    page.locator("#why").wait_for()
    assert not page.locator("#objects").is_visible()
    page.click("#why-close")
    page.click("#objects-clear")
    assert not page.locator("#objects").is_visible()
    page.mouse.move(x, y)
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(x + 100, y + 80, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert not page.locator("#objects").is_visible()  # with Shift, dragging moves the image


@pytest.mark.slow
def test_zoom_and_pan(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200, 640, 480)))
    box = page.locator("#canvas").bounding_box()
    assert box is not None

    def covered() -> float:
        colors = page.locator("#canvas").evaluate(
            "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            " let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n / (c.width * c.height); }"
        )
        return float(colors)

    visit.colors()
    fitted = covered()
    page.click("#out")
    visit.colors()
    assert covered() < fitted
    for _ in range(4):
        page.click("#in")
    visit.colors()
    assert covered() == 1
    page.locator("#canvas").focus()
    page.keyboard.press("0")
    visit.colors()
    assert covered() == pytest.approx(fitted)
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.wheel(0, -600)
    page.mouse.down()
    page.mouse.move(box["x"] + 350, box["y"] + 350, steps=4)
    page.mouse.up()
    visit.colors()
    assert 0 < covered() < 1


@pytest.mark.slow
def test_an_image_format_that_the_browser_cannot_decode(visit: Visit):
    out = io.BytesIO()
    Image.new("RGB", (640, 480), (100, 0, 0)).save(out, "TIFF")
    data = out.getvalue()
    assert len(data) > 500_000  # over the limit of the server, so the image is sent compressed
    small = io.BytesIO()
    Image.new("RGB", (640, 480), (100, 0, 0)).save(small, "TIFF", compression="tiff_lzw")
    visit.add(("a.tif", small.getvalue()))
    visit.page.locator("#save-image:not([disabled])").wait_for()
    assert any(abs(r - 100) < 6 and g < 6 and b < 6 for r, g, b in visit.colors())


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 820, 2000])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_at_any_screen_width(browser: Browser, server: Server, width: int, scheme: str):
    visit = Visit(browser, server, viewport={"width": width, "height": 700}, color_scheme=scheme)
    page = visit.page
    visit.add(("an image with a rather long name that goes on and on.png", png(200, 640, 480)), ("b.png", b"no"))
    page.click("#explain")
    page.locator("#canvas").click()
    page.locator("#why").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a:not(.skip), h2, p, output")].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width && !e.closest("#strip") && (r.left < -1 || r.right > innerWidth + 1);
        }).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert beyond == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back))) < 200) is (scheme == "dark")
    page.goto(server.url + "/docs")
    page.locator("article").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "/v1/detect" in page.locator("main").inner_text()
    assert all("415" in error for error in visit.errors)
    visit.context.close()


@pytest.mark.slow
def test_the_key_dialog_and_the_error_when_the_server_has_stopped(browser: Browser, tmp_path: Path):
    (tmp_path / "keys").write_text("open sesame\n")
    with Server(f"api_key_file=Path({str(tmp_path / 'keys')!r})") as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        for key in ("wrong", "open sesame"):
            page.locator("#key-dialog[open]").wait_for()
            page.fill("#key", key)
            page.get_by_text("Use key").click()
        page.locator("#classes li").first.wait_for()
        server.stop()
        page.set_input_files("#files", [{"name": "a.png", "mimeType": "image/png", "buffer": png(1)}])
        page.get_by_text("a.png: the server does not respond. Check that it is still running").wait_for()
        context.close()


def test_colours_have_enough_contrast_in_light_and_dark():
    def luminance(colour: str) -> float:  # WCAG 2.2, relative luminance
        full = "".join(c * 2 for c in colour[1:]) if len(colour) == 4 else colour[1:]
        channels = [int(full[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    blocks = re.findall(r":root \{(.*?)\}", (PAGE / "style.css").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        colour = dict(re.findall(r"--([\w-]+): (#\w+)", block))
        pairs = [("ink", "page"), ("ink", "card"), ("muted", "page"), ("muted", "card"), ("muted", "sunk")]
        pairs += [("on-accent", "accent"), ("bad", "bad-back"), ("accent", "card")]
        for front, back in pairs:
            low, high = sorted((luminance(colour[front]), luminance(colour[back])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back)
