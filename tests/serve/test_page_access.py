"""Test that the web page can be used with a keyboard, a screen reader, large text, and few colours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from retinanet.serve.app import PAGE
from tests.accessibility import violations, violations_on_all_screens
from tests.serve.visit import Visit, browser, png, server, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.serve.fakes import Server

__all__ = ["browser", "server", "visit"]

SMALL = """() => [...document.querySelectorAll("a, button, input, select, summary, [tabindex]")].filter(node => {
    if (!node.checkVisibility() || node.closest(".skip")) return false;
    const { width, height } = (node.type === "checkbox" ? node.closest("label") : node).getBoundingClientRect();
    return width < 24 || height < 24;
}).map(node => node.outerHTML.slice(0, 100))"""
"""Return the controls that are smaller than 24 x 24 px. The label of a box is a part of it."""


def open_explanation(page: Page) -> None:
    page.locator("#canvas").click()
    page.locator(".answer summary").first.click()
    page.locator(".levels-list").first.wait_for()


@pytest.mark.slow
def test_the_page_and_its_results_have_no_violations(visit: Visit):
    assert violations(visit.page) == []
    visit.add(("a.png", png(200, 640, 480)), ("b.png", png(100)))
    assert violations(visit.page) == []
    assert visit.page.evaluate(SMALL) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "state", ["empty", "one image and an error", "many images", "explained", "failed", "keys", "camera"]
)
def test_no_state_of_the_page_has_violations_on_any_screen(visit: Visit, state: str):
    page = visit.page
    if state == "many images":
        visit.model(tuned={"aim": "f1", "thresholds": [0.4, 0.5, 0.6], "sentence": "No promise."})
        visit.answer(
            (0, 0.9, (0, 0, 300, 300)),
            (1, 0.8, (5, 0, 300, 300)),
            *[(2, 0.7, (500.0, 9.0 * k, 600.0, 9.0 * k + 8)) for k in range(40)],
        )
        visit.add(*[(f"{k}.png", png(200, 640, 480)) for k in range(8)])
    elif state != "empty":
        visit.add(("a.png", png(200, 640, 480)))
    if state == "explained":
        open_explanation(page)
    elif state == "failed":
        visit.add(("no.png", b"no"))
        page.locator("#failure").wait_for()
    elif state == "one image and an error":
        page.evaluate("async () => (await import('./messages.js')).showError('The message of an error.')")
    elif state == "keys":
        page.click("#keys")
    elif state == "camera":
        page.click("#camera")
        page.locator("#camera-dialog[open]").wait_for()
    assert violations_on_all_screens(page) == []
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(SMALL) == []


@pytest.mark.slow
def test_the_key_dialog_and_the_description_of_the_api_have_no_violations(visit: Visit):
    page = visit.page
    page.goto(page.url + "docs.html")
    page.locator("article").first.wait_for()
    assert violations_on_all_screens(page) == []
    assert page.evaluate(SMALL) == []
    page.route("**/v1/model", lambda route: route.fulfill(status=401, json={"detail": "no key"}))
    page.goto(page.url.removesuffix("docs.html"))
    page.locator("#key-dialog[open]").wait_for()
    assert violations_on_all_screens(page) == []


@pytest.mark.slow
def test_landmarks_have_different_names(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200, 640, 480)))
    tree = page.locator("body").aria_snapshot()
    found = re.findall(r"^ *- (banner|main|navigation|region|complementary)(.*?):?$", tree, re.MULTILINE)
    names = [f"{role}{name}" for role, name in found]
    assert len(names) == len(set(names)) >= 9, names
    assert {name.strip() for role, name in found if role == "region"} >= {'"Image"', '"Score threshold"', '"Classes"'}


@pytest.mark.slow
def test_a_keyboard_opens_explains_and_reviews_two_images_with_few_presses(visit: Visit):
    """Count the presses from the opened page to the second image, without the dialog that chooses files."""
    page = visit.page
    presses = 0
    files = [{"name": f"{name}.png", "mimeType": "image/png", "buffer": png(200)} for name in "ab"]
    page.on("filechooser", lambda chooser: chooser.set_files(files))

    def press(key: str) -> str:
        nonlocal presses
        presses += 1
        page.keyboard.press(key)
        page.wait_for_timeout(100)
        focused = visit.focused()
        assert focused != "BODY", f"the focus is lost after {key}"
        return focused

    def status(text: str) -> None:
        page.locator("#status", has_text=re.compile(f"^{text}$")).wait_for(state="attached")

    assert press("Tab") == "A"  # skip link
    assert press("Tab") == "choose"
    press("Enter")
    visit.finish()
    assert visit.focused() == "canvas"
    status("a.png: 2 detections: 1 cell, 1 platelet")
    assert press("d") == "canvas"
    status("detection 1, class cell, score 0.90")
    press("Enter")
    page.locator(".answer:focus").wait_for()
    assert re.match("Found|Missed", page.locator(".answer:focus").inner_text())
    assert press("Escape") == "canvas"
    assert press("n") == "canvas"
    status("b.png: 2 detections: 1 cell, 1 platelet")
    assert page.locator("#canvas").get_attribute("aria-label") == "b.png: 2 detections: 1 cell, 1 platelet"
    assert press("d") == "canvas"
    status("detection 1, class cell, score 0.90")
    assert presses == 8


@pytest.mark.slow
def test_keys_act_only_where_they_are_expected(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200)), ("b.png", png(200)))
    title = page.title()
    page.locator("#threshold").focus()
    for key in ("n", "d", "Delete", "?"):
        page.keyboard.press(key)
    assert page.title() == title
    assert page.locator(".thumb").count() == 2
    assert page.locator("#keys-dialog").is_hidden()
    page.locator("#canvas").focus()
    page.keyboard.press("?")
    page.locator("#keys-dialog").wait_for()
    page.keyboard.press("n")
    assert page.title() == title
    page.keyboard.press("Escape")
    assert visit.focused() == "canvas"
    page.keyboard.press("n")
    assert page.title() != title


@pytest.mark.slow
def test_the_slider_does_not_interrupt_a_screen_reader(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200)))
    page.wait_for_timeout(200)
    before = page.locator("[aria-live], [role=status], [role=alert]").all_inner_texts()
    visit.slide(0.25)
    page.wait_for_timeout(200)
    assert visit.count() == "3 detections"
    assert page.locator("[aria-live], [role=status], [role=alert]").all_inner_texts() == before


@pytest.mark.slow
def test_the_focus_is_never_lost(visit: Visit):
    page = visit.page
    visit.add(("a.png", png(200)), ("no.png", b"no"), ("b.png", png(200)))
    page.evaluate("async () => (await import('./messages.js')).showError('The message of an error.')")
    for action in (
        "#problems button",
        "#all",
        "#none",
        "#all",
        "#in",
        "#fit",
        ".thumb >> nth=1",
        "#failure-retry",
        "#failure-remove",
    ):
        page.locator(action).focus()
        page.keyboard.press("Enter")
        visit.finish()
        assert visit.focused() != "BODY", action
    row = page.locator("#found button").nth(1)
    row.focus()
    page.evaluate(
        "() => { const s = document.querySelector('#threshold'); s.value = 0.7; s.dispatchEvent(new Event('input')); }"
    )
    assert page.locator("#found button").first.evaluate("row => row === document.activeElement")
    page.locator("#remove-all").focus()
    page.keyboard.press("Enter")
    assert visit.focused() == "choose"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "scheme"),
    [((320, 256), "light"), ((320, 700), "dark"), ((820, 700), "light"), ((1280, 400), "dark"), ((2000, 700), "light")],
)
def test_nothing_is_cut_off_at_any_size_of_the_screen(
    browser: Browser, server: Server, size: tuple[int, int], scheme: str
):
    """A screen of 1280 x 1024 that is enlarged to 400 % has 320 x 256 px."""
    visit = Visit(browser, server, viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = visit.page
    visit.model(tuned={"aim": "f1", "thresholds": [0.1, 0.2, 0.3], "sentence": "A promise with many words. " * 4})
    visit.add(("an image with a rather long name that goes on and on.png", png(200, 640, 480)), ("b.png", b"no"))
    open_explanation(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a, h2, p, output")].filter(e => {
            const r = e.getBoundingClientRect();
            return r.width && !e.closest("#strip, .skip, .for-readers") && (r.left < -1 || r.right > innerWidth + 1);
        }).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert beyond == []
    assert page.locator("#stage").bounding_box()["height"] >= 150  # type: ignore[index]
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back))) < 200) is (scheme == "dark")
    page.goto(server.url + "/docs")
    page.locator("article").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert "/v1/detect" in page.locator("main").inner_text()
    assert all("415" in error for error in visit.errors)
    visit.context.close()


@pytest.mark.slow
def test_without_motion_and_with_forced_colours(browser: Browser, server: Server):
    visit = Visit(browser, server, forced_colors="active", reduced_motion="reduce")
    page = visit.page
    visit.add(("a.png", png(200)))
    moving = "() => document.getAnimations().length + getComputedStyle(document.querySelector('#busy')).animationName"
    assert page.evaluate(moving) == "0none"
    fills = page.evaluate(
        "() => ['kept', 'out'].map(name => getComputedStyle(document.querySelector(`#bars .${name}`)).fill)"
    )
    assert len(set(fills)) == 2
    assert violations(page) == []
    visit.context.close()


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
