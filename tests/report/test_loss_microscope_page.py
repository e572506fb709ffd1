"""The loss microscope in Chromium: sliders by keyboard, without JavaScript, and accessibility."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from retinanet.cli import main
from retinanet.report.loss_microscope import percent
from tests.accessibility import violations_on_all_screens
from tests.browser import browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.shared import CreateOnce

__all__ = ["browser"]
TEXTS = (".headline", ".histogram .title", ".pair tbody td", ".losses td", ".classes td", ".places li:visible")
"""Elements whose text the script replaces."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checked(trained_run: Path, squares: tuple[Path, Path], create_once: CreateOnce) -> Path:
    """Return a folder with report.html and check.json of `check MODEL DATA`."""

    def make(folder: Path) -> None:
        words = ["check", trained_run / "best.ckpt", squares[1], "--report", folder / "report.html"]
        with pytest.raises(SystemExit):
            main([str(word) for word in (*words, "--json", folder / "check.json")])

    return create_once("microscope", make)


def test_sliders_by_keyboard_show_the_numbers_of_python(browser: Browser, checked: Path) -> None:
    document = json.loads((checked / "check.json").read_text())["loss_microscope"]
    (expected,) = [row for row in document["gradient_shares"] if (row["alpha"], row["gamma"]) == (0.25, 0.5)]
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto((checked / "report.html").as_uri())
    at_start = page.locator(".headline").text_content()
    places = page.locator(".places li:visible").all_text_contents()
    alpha, gamma = page.get_by_role("slider", name="Alpha"), page.get_by_role("slider", name="Gamma")
    for _ in range(10):
        alpha.press("ArrowLeft")
    for _ in range(6):
        gamma.press("ArrowLeft")
    headline = page.locator(".headline").text_content()
    assert headline is not None
    assert headline.startswith("With alpha 0.25 and gamma 0.5, objects cause ")
    for name in ("hard_background", "easy_background"):
        assert f"{name.replace('_', ' ')} {percent(expected[name])}" in headline
    assert f"objects cause {percent(expected['objects'] + expected['rare_objects'])} of the gradient" in headline
    assert headline in (gamma.get_attribute("aria-valuetext") or "")
    command = page.locator(".command pre").text_content()
    assert command is not None
    assert command.endswith("-focal-0.25-0.5 --loss focal --alpha 0.25 --gamma 0.5")
    assert page.locator(".places li:visible").all_text_contents() != places
    page.get_by_label("Equal weights (no alpha)").check()
    assert "equal weights" in (page.locator(".headline").text_content() or "")
    page.get_by_role("button", name="Back to the start").click()
    assert page.locator(".headline").text_content() == at_start
    assert page.locator(".places li:visible").all_text_contents() == places
    assert not errors
    page.close()


def test_the_page_is_complete_without_javascript(browser: Browser, checked: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((checked / "report.html").as_uri())
    assert page.get_by_role("slider").count() == 0
    assert "With alpha 0.75 and gamma 2" in (page.locator(".headline").text_content() or "")
    assert page.locator(".places li:visible img").count() > 0
    context.close()


def test_the_script_repeats_the_numbers_of_the_page(browser: Browser, checked: Path) -> None:
    """The script starts at the setting of training, so it must not change a number that Python wrote."""
    texts = []
    for enabled in (False, True):
        context = browser.new_context(java_script_enabled=enabled)
        page = context.new_page()
        page.goto((checked / "report.html").as_uri())
        texts.append({part: page.locator(part).all_text_contents() for part in TEXTS})
        drawing = page.locator('path[data-panel="gradient"]')
        texts[-1]["drawing"] = [drawing.nth(i).get_attribute("d") or "" for i in range(drawing.count())]
        context.close()
    assert texts[0] == texts[1]
    assert all(texts[0].values())


def test_accessibility_and_reflow(browser: Browser, checked: Path) -> None:
    page = browser.new_page()
    page.goto((checked / "report.html").as_uri())
    for summary in page.locator(".microscope summary").all():
        summary.click()
    other_tables = '<div class="scroll'  # tables outside the microscope
    found = [v for v in violations_on_all_screens(page) if other_tables not in v or "aria-label" in v]
    assert not found
    page.set_viewport_size({"width": 320, "height": 640})
    width = page.locator(".microscope").bounding_box()
    assert width is not None
    assert width["x"] + width["width"] <= 320
    page.close()
