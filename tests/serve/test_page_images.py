"""Test the web page's images: adding, failing and removing them, and keeping them for a reload."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.serve.fakes import Server
from tests.serve.visit import Visit, browser, png, server, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

__all__ = ["browser", "server", "visit"]


def labels(page: Page) -> list[str]:
    return [thumb.get_attribute("aria-label") or "" for thumb in page.locator(".thumb").all()]


def current(page: Page) -> str:
    return page.locator(".thumb[aria-current]").get_attribute("aria-label") or ""


@pytest.mark.slow
def test_an_invalid_file_shows_its_reason_and_does_not_block_the_others(visit: Visit):
    page = visit.page
    visit.add(("no.png", b"no image"), ("a.png", png(200)), ("b.png", png(100)))
    assert current(page) == "a.png, 2 detections"
    assert page.title().startswith("a.png – ")
    assert page.locator("#strip-text").inner_text() == "3 images, 1 failed"
    assert page.get_by_role("alert").inner_text() == ""
    page.locator(".thumb").first.click()
    assert page.locator("#failure-reason").inner_text().startswith("not a readable image")
    assert page.locator("#canvas").is_hidden()
    page.locator(".thumb").first.focus()
    page.keyboard.press("ArrowRight")
    assert current(page) == "a.png, 2 detections"
    assert page.locator("#canvas").is_visible()
    page.keyboard.press("End")
    assert current(page) == "b.png, 2 detections"
    page.set_input_files("#files", [{"name": "big.png", "mimeType": "image/png", "buffer": bytes(600_000)}])
    page.get_by_text("the file has 0.6 MB, the limit of the server is 0.5 MB").wait_for()
    assert page.locator("#failure-name").inner_text() == "big.png"
    assert visit.focused() == "failure"
    page.get_by_role("button", name="Remove file").click()
    assert current(page) == "b.png, 2 detections"
    assert visit.focused() == "canvas"


@pytest.mark.slow
def test_images_are_removed_by_mouse_and_by_keyboard(visit: Visit):
    page = visit.page
    visit.add(*[(f"{name}.png", png(200)) for name in "abcd"])
    page.get_by_role("button", name="Remove a.png").click()
    assert [label.split(",")[0] for label in labels(page)] == ["b.png", "c.png", "d.png"]
    assert visit.page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("b.png")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    assert current(page).startswith("d.png")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("d.png")
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    assert labels(page) == []
    assert page.get_by_text("Drop images here").is_visible()
    assert visit.focused() == "choose"
    assert page.title() == "1.onnx – retinanet"
    assert page.locator("#found-section").is_hidden()
    visit.add(("e.png", png(200)), ("f.png", png(200)))
    page.click("#remove-all")
    assert labels(page) == []
    assert visit.focused() == "choose"


@pytest.mark.slow
def test_a_reload_keeps_the_images_and_the_filters(visit: Visit):
    page = visit.page
    assert page.get_by_text("This browser keeps them until you remove them.").is_visible()
    visit.add(("a.png", png(200)), ("b.png", png(100)), ("no.png", b"no"))
    page.locator(".thumb").nth(1).click()
    visit.slide(0.25)
    page.get_by_role("checkbox", name="platelet").uncheck()
    detections = len([url for url in visit.requests if "/v1/detect" in url])
    page.wait_for_timeout(400)  # the page writes its settings after a pause
    page.reload()
    visit.finish()
    assert current(page) == "b.png, 2 detections"
    assert [label.split(",")[0] for label in labels(page)] == ["a.png", "b.png", "no.png"]
    assert page.locator("#threshold-value").inner_text() == "0.25"
    assert not page.get_by_role("checkbox", name="platelet").is_checked()
    # Only the file without a result is sent again.
    assert len([url for url in visit.requests if "/v1/detect" in url]) == detections + 1
    page.click("#remove-all")
    page.wait_for_timeout(300)
    page.reload()
    page.locator("#classes li").first.wait_for()
    assert page.get_by_text("Drop images here").is_visible()
    stored = page.evaluate(
        """() => new Promise(done => {
            const request = indexedDB.open("retinanet /");
            request.onsuccess = () => {
                const count = request.result.transaction("files").objectStore("files").count();
                count.onsuccess = () => done(count.result);
            };
        })"""
    )
    assert stored == 0


@pytest.mark.slow
def test_after_another_start_of_the_server_images_are_sent_again(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200)))
    visit.slide(0.25)
    page.wait_for_timeout(400)
    visit.answer((1, 0.8, (0.0, 0.0, 9.0, 9.0)))
    visit.model(server_id="another start")
    visit.finish()
    assert current(page) == "a.png, 1 detection"
    assert page.locator("#threshold-value").inner_text() == "0.25"
    page.wait_for_timeout(400)
    visit.model(classes=["x", "y", "z"], server_id="another model")
    visit.finish()
    assert page.locator("#threshold-value").inner_text() == "0.50"  # the filters are those of other classes


@pytest.mark.slow
def test_the_oldest_images_are_dropped_from_the_browser_beyond_its_limit(visit: Visit):
    page = visit.page

    def limited(route: Route) -> None:
        text = route.fetch().text()
        assert "MAX_BYTES = 200e6" in text
        route.fulfill(body=text.replace("MAX_BYTES = 200e6", "MAX_BYTES = 1600"), content_type="text/javascript")

    page.route("**/session.js", limited)
    page.reload()
    page.locator("#classes li").first.wait_for()
    size = len(png(200))
    assert 2 * (size + 600) < 1600 < 3 * size + 3 * 600  # 3 detections of 200 bytes
    visit.add(*[(f"{name}.png", png(200)) for name in "abc"])
    note = page.locator("#kept-text")
    note.wait_for()
    assert note.inner_text() == "The oldest image is not kept for a reload: this browser keeps at most 200 MB."
    assert len(labels(page)) == 3
    page.reload()
    visit.finish()
    assert [label.split(",")[0] for label in labels(page)] == ["b.png", "c.png"]


@pytest.mark.slow
def test_without_storage_the_page_works_and_promises_nothing(visit: Visit):
    page = visit.page
    page.add_init_script("Object.defineProperty(window, 'indexedDB', { get() { throw new Error('denied'); } })")
    page.reload()
    page.locator("#classes li").first.wait_for()
    assert page.get_by_text("The server does not store them.").is_visible()
    assert page.get_by_text("This browser keeps them").is_hidden()
    visit.add(("a.png", png(200)))
    assert visit.count() == "2 detections"
    page.reload()
    page.locator("#classes li").first.wait_for()
    assert labels(page) == []


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
    assert visit.focused() == "canvas"


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
        assert page.evaluate("document.activeElement.id") == "choose"
        server.stop()
        page.set_input_files("#files", [{"name": "a.png", "mimeType": "image/png", "buffer": png(1)}])
        page.get_by_text("the server does not respond. Check that it is still running").first.wait_for()
        assert page.locator("#failure-name").inner_text() == "a.png"
        context.close()
