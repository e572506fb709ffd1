"""The explorable evaluation in Chromium: threshold, filters, confusion cells, enlarged image, accessibility."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from retinanet.analysis.next_steps import NextStep
from retinanet.analysis.outcomes import Outcomes
from retinanet.evaluate.per_image import ImageResults
from retinanet.report import Report, figures
from retinanet.report.explorer import Explorer, Run
from retinanet.report.verdict import verdict
from tests.accessibility import violations, violations_on_all_screens
from tests.browser import browser
from tests.evaluate.image_results import make

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]
pytestmark = pytest.mark.slow

COMMAND = "retinanet check runs/first/best.ckpt data/val.json"


def scene(seed: int, quality: float) -> ImageResults:
    """Return an image with objects of two classes, and detections of a model with this share of right detections."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for place in range(12):
        x, y = 10 + 75 * (place % 4), 10 + 75 * (place // 4)
        label = int(rng.integers(2))
        truth.append((x, y, x + 50, y + 50, label))
        detected = label if rng.random() < quality else 1 - label
        found.append((x + 3, y, x + 52, y + 50, detected, float(rng.uniform(0.05, 1))))
    found += [(320, 20 + 60 * k, 380, 70 + 60 * k, 0, float(rng.uniform(0.3, 1))) for k in range(2)]
    return make(truth, found, size=(400, 240))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a report of one model and a comparison of two."""
    folder = tmp_path_factory.mktemp("reports")
    runs = [
        Run(name=f"model {n}", outcomes=Outcomes([scene(k, q) for k in range(20)], ["cat", "dog"], threshold=t))
        for n, (q, t) in enumerate(((0.8, 0.4), (0.95, 0.6)), start=1)
    ]
    written = {}
    for name, chosen in (("one", runs[:1]), ("two", runs)):
        report = Report(f"Report of {name}", in_short=["A sentence."])
        explorer = Explorer(report, chosen)
        explorer.first_screen(verdict(chosen[0].outcomes), [NextStep(reason="See the errors", command=COMMAND)] * 2)
        explorer.images_section(report.section("Images"))
        explorer.confusion_section(report.section("Confusion matrix"))
        section = report.section("Evaluation")
        section.table(["Class", "AP"], [["cat", 0.5]], caption="Metrics")
        section.figure(figures.class_bars({"cat": (0.4, 0.6)}), alt="bars")
        written[name] = report.write(folder / f"{name}.html")
    return written


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page on a wide screen; errors of its scripts fail the test."""
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield opened
    opened.close()
    assert not errors


def numbers(page: Page) -> list[int]:
    """Return the numbers of the tiles."""
    return [int(text.replace(",", "")) for text in page.locator(".tile strong").all_inner_texts()]


def move(page: Page, step: int) -> None:
    page.locator("#threshold").fill(str(step))
    page.locator("#threshold").dispatch_event("change")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")


def test_the_threshold_moves_counts_matrix_captions_and_boxes(page: Page, reports: dict[str, Path]) -> None:
    page.goto(reports["one"].as_uri())
    outcomes = Outcomes([scene(k, 0.8) for k in range(20)], ["cat", "dog"], threshold=0.4)
    for step in (40, 80, 7):
        move(page, step)
        counts = outcomes.counts(step)
        assert numbers(page) == [counts.found, counts.missed, counts.false, counts.unlabelled]
        assert page.locator(".bar dd").all_inner_texts() == [
            f"{value:.3f}" for value in (counts.precision, counts.recall, counts.f1) if value is not None
        ]
        matrix = outcomes.confusion(step)
        cells = np.zeros_like(matrix)
        for text, name in page.locator(".matrix button").evaluate_all(
            "nodes => nodes.map(node => [node.innerText, node.dataset.cell])"
        ):
            cells[tuple(map(int, name.split(",")))] = int(text.split()[0])
        assert np.array_equal(cells, matrix)
        if page.locator(".more").is_visible():
            page.locator(".more").click()
        captions = page.locator("figcaption").all_inner_texts()
        assert len(captions) == 20
        assert sum(int(re.findall(r"(\d+) found", caption)[0]) for caption in captions) == counts.found


def test_without_a_script_the_page_shows_the_same_numbers(
    browser: Browser, page: Page, reports: dict[str, Path]
) -> None:
    for name, views in (("one", 12), ("two", 24)):
        context = browser.new_context(java_script_enabled=False, viewport={"width": 1440, "height": 900})
        still = context.new_page()
        for opened in (still, page):
            opened.goto(reports[name].as_uri())
        for selector in (".tile", ".bar dd", ".bar output", "figcaption", ".matrix tr"):
            static, moving = (
                [" ".join(text.split()) for text in opened.locator(selector).all_inner_texts()]
                for opened in (still, page)
            )
            assert static == moving, selector
        labels = [sorted(opened.locator(".view text").all_text_contents()) for opened in (still, page)]
        assert labels[0] == labels[1]
        assert still.locator("svg.view").count() == page.locator("svg.view").count() == views
        assert not still.locator("button:visible, input:visible, select:visible").count()
        context.close()


def test_filters_and_cells_choose_images_and_boxes(page: Page, reports: dict[str, Path]) -> None:
    page.goto(reports["one"].as_uri())
    everything = numbers(page)
    of_classes = []
    for label in ("0", "1"):
        page.locator("[data-filter=label]").select_option(label)
        of_classes.append(numbers(page))
    assert np.add(*of_classes).tolist() == everything
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelector('.active').hidden")
    assert numbers(page) == everything
    cell = page.locator(".matrix [data-cell='0,1']")
    count = int(cell.inner_text().split()[0])
    cell.click()
    assert (
        f"Objects of class cat detected as dog: {count} of {count} are in these images"
        in page.locator(".state").inner_text()
    )
    labels = page.locator(".view text").all_text_contents()
    assert {text.split()[1] for text in labels} == {"cat", "dog"}
    assert page.evaluate("document.activeElement.className") == "enlarge"
    cell.click()
    assert page.locator(".state").inner_text() == "12 of 20 embedded images."


def test_the_enlarged_image_is_operated_by_keys_and_returns_the_focus(page: Page, reports: dict[str, Path]) -> None:
    page.goto(reports["one"].as_uri())
    first = page.locator(".enlarge").first
    first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    view = dialog.locator("svg.view")
    whole = view.get_attribute("viewBox")
    page.keyboard.press("+")
    zoomed = view.get_attribute("viewBox")
    page.keyboard.press("Shift+ArrowRight")
    assert len({whole, zoomed, view.get_attribute("viewBox")}) == 3
    page.keyboard.press("ArrowRight")
    assert dialog.locator(".caption").inner_text().startswith("2 of 20")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert dialog.locator(".caption").inner_text().startswith("20 of 20")
    dialog.locator("input").fill("95")
    assert page.locator(".bar output").inner_text() == "0.95"
    assert not violations(page)
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert first.evaluate("node => node === document.activeElement")


def test_two_models_share_the_threshold_and_show_what_only_one_finds(page: Page, reports: dict[str, Path]) -> None:
    page.goto(reports["two"].as_uri())
    assert page.locator(".bar output").inner_text() == "0.40 / 0.60"
    move(page, 50)
    assert page.locator(".bar output").inner_text() == "0.50 / 0.70"
    page.get_by_label("same for both").check()
    assert page.locator(".bar output").inner_text() == "0.50 / 0.50"
    first, second = (
        [Outcomes([scene(k, q)], ["cat", "dog"], threshold=0.5).images[0].found_G >= 500 for k in range(20)]
        for q in (0.8, 0.95)
    )
    for option, only in (
        ("only-0", [a & ~b for a, b in zip(first, second, strict=True)]),
        ("only-1", [b & ~a for a, b in zip(first, second, strict=True)]),
    ):
        page.locator("[data-filter=outcome]").select_option(option)
        expected = sum(bool(of_image.any()) for of_image in only)
        assert f"of {expected} embedded image" in page.locator(".state").inner_text()


def test_a_command_is_copied_or_at_least_selected(page: Page, reports: dict[str, Path]) -> None:
    page.goto(reports["one"].as_uri())
    page.locator(".command button").first.click()
    page.locator(".command button", has_text=re.compile("Copied|Selected")).wait_for()
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined}); document.execCommand = () => false"
    )
    second = page.locator(".command button").last
    second.click()
    assert second.inner_text() == "Selected"
    assert page.evaluate("getSelection().toString().trim()") == COMMAND


@pytest.mark.parametrize("name", ["one", "two"])
def test_all_is_on_the_first_screen_and_accessible_on_all_screens(
    page: Page, reports: dict[str, Path], name: str
) -> None:
    page.goto(reports[name].as_uri())
    bottom = page.locator(".commands").evaluate("node => node.getBoundingClientRect().bottom + scrollY")
    assert bottom <= 900
    page.set_viewport_size({"width": 390, "height": 844})
    bottom = page.locator(".commands").evaluate("node => node.getBoundingClientRect().bottom + scrollY")
    assert bottom <= 844
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not violations_on_all_screens(page)
    sizes = (
        page.locator(".matrix")
        .first.locator("th, small, td")
        .evaluate_all("nodes => nodes.map(node => parseFloat(getComputedStyle(node).fontSize))")
    )
    assert min(sizes) >= 12
