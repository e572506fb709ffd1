"""Provide a visit to the web page in Chromium. A test module imports the fixtures `browser`, `server` and `visit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import browser
from tests.serve.fakes import CLASSES, Server, png

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

__all__ = ["Visit", "browser", "png", "server", "visit"]


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
        self.finish()

    def finish(self) -> None:
        """Wait until every image has a result or a reason for failing."""
        self.page.locator(".thumb").last.wait_for()
        self.page.wait_for_function("() => !document.querySelector('.thumb:not(.done, .failed)')")

    def model(self, **fields: Any) -> None:
        """Replace fields of the model that the server describes, and reload the page.

        The server itself has no tuned thresholds: it explains with the lowest of them.
        """
        if tuned := fields.get("tuned"):
            lowest = f"threshold={min(tuned['thresholds'])}"
            self.page.route(
                "**/v1/explain?*",
                lambda route: route.continue_(url=route.request.url.replace("threshold=tuned", lowest)),
            )
        self.page.route("**/v1/model", lambda route: route.fulfill(json={**route.fetch().json(), **fields}))
        self.page.reload()
        self.page.locator("#classes li").first.wait_for()

    def answer(self, *detections: tuple[int, float, tuple[float, float, float, float]]) -> None:
        """Let the server answer with these detections: class id, score and box of each."""
        found = [{"class_id": k, "class": CLASSES[k], "score": score, "box": box} for k, score, box in detections]

        def fulfill(route: Route) -> None:
            answer = route.fetch().json()
            answer["images"][0]["detections"] = found
            route.fulfill(json=answer)

        self.page.route("**/v1/detect?*", fulfill)

    def focused(self) -> str:
        """Return the id of the element that has the focus, or its tag."""
        return str(self.page.evaluate("document.activeElement.id || document.activeElement.tagName"))

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
