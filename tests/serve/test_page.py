"""Test the web page's image: explaining, zooming and moving."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest

from tests.serve.visit import Visit, browser, png, server, visit

__all__ = ["browser", "server", "visit"]


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
