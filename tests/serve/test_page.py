"""Test the web page's image: zooming and moving."""

from __future__ import annotations

import pytest

from tests.serve.visit import Visit, browser, png, server, visit

__all__ = ["browser", "server", "visit"]


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
