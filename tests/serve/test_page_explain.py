"""Test that the web page explains objects: clicks, drawn boxes, handles, neighbours, and keys, in a hand-made scene."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.serve.fakes import Server
from tests.serve.scene import FOUND, LOW, SUPPRESSED
from tests.serve.visit import Visit, browser, png, visit

__all__ = ["browser", "visit"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(loader="tests.serve.scene:load") as running:
        yield running


class Image:
    """The image of the page: converts places of the image of 640 x 480 to the screen."""

    def __init__(self, visit: Visit) -> None:
        self.visit, self.page = visit, visit.page
        visit.add(("a.png", png(200, 640, 480)))
        visit.page.locator("#found li").first.wait_for()

    def on_screen(self, x: float, y: float) -> tuple[float, float]:
        area = self.page.locator("#canvas").bounding_box()
        assert area is not None
        scale = min((area["width"] - 16) / 640, (area["height"] - 16) / 480)
        left, top = (area["width"] - 640 * scale) / 2, (area["height"] - 480 * scale) / 2
        return area["x"] + left + x * scale, area["y"] + top + y * scale

    def click(self, x: float, y: float) -> str:
        self.page.mouse.click(*self.on_screen(x, y))
        return self.answer()

    def drag(self, start: tuple[float, float], end: tuple[float, float], *, shift: bool = False) -> None:
        if shift:
            self.page.keyboard.down("Shift")
        self.page.mouse.move(*self.on_screen(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.on_screen(*end), steps=4)
        self.page.mouse.up()
        if shift:
            self.page.keyboard.up("Shift")

    def draw(self, box: tuple[float, float, float, float]) -> str:
        self.drag(box[:2], box[2:], shift=True)
        return self.answer()

    def answer(self) -> str:
        """Return the open answer, when it is complete."""
        self.page.locator(".answer h3").wait_for()
        self.page.locator("#busy").wait_for(state="hidden")
        return self.page.locator(".answer").inner_text()

    def causes(self) -> list[str]:
        self.page.locator("#busy").wait_for(state="hidden")
        return self.page.locator(".cause").all_inner_texts()

    def queries(self) -> list[dict[str, list[str]]]:
        """Return the parameters of each request for an explanation."""
        return [parse_qs(urlsplit(url).query) for url in self.visit.requests if "/v1/explain" in url]


@pytest.fixture
def image(visit: Visit) -> Image:
    return Image(visit)


def test_one_click_gives_the_reason_of_a_miss(image: Image):
    answer = image.click(330, 330)
    assert answer.startswith("Missed: below the threshold")
    assert "at thresholds up to 0.369" in answer
    assert re.search(r"platelet\s+0\.370\s+cell\s+0\.350", answer)
    assert "With the threshold 0.369, the object is detected. The image then has 4 instead of 2 detections." in answer
    assert "retinanet predict --threshold 0.369" in answer
    assert "1 anchor is positive for the object" in answer
    assert len(image.queries()) == 1
    assert image.page.evaluate("document.activeElement.className") == "answer"
    image.page.get_by_role("button", name="set slider to 0.36").click()
    assert image.page.locator("#threshold-value").inner_text() == "0.36"
    image.page.locator(".answer h3", has_text="Detected: ").wait_for()


def test_a_second_click_corrects_the_class(image: Image):
    image.click(330, 330)
    select = image.page.get_by_label("Class of object 1")
    select.focus()
    select.select_option("white, cell")
    image.page.locator(".answer h3", has_text="Missed: low scores").wait_for()
    assert image.queries()[-1]["class"] == ["white, cell"]
    assert image.page.evaluate("document.activeElement.tagName") == "SELECT"  # the answer does not take the focus


def test_a_click_in_a_detection_and_just_outside_of_it(image: Image):
    assert image.click(70, 110).startswith("Detected: detection 1, cell 0.90")
    answer = image.click(164, 110)
    assert "This place is 4 pixels outside of detection 1, cell 0.90." in answer
    image.page.get_by_role("button", name="Explain detection 1").click()
    image.page.locator(".answer h3", has_text="Detected: detection 1").wait_for()
    assert image.causes() == ["detected"]  # a draft gives way to the next one


def test_another_object_at_the_place_is_one_click_away(image: Image):
    assert image.click(140, 110).startswith("Detected: detection 1")
    image.page.get_by_role("button", name=re.compile(r"cell 0\.\d\d, not detected")).click()
    image.page.locator(".answer h3", has_text="Detected: detection 1").wait_for()
    box = [float(value) for value in image.queries()[-1]["box"][0].split(",")]
    assert box == pytest.approx(SUPPRESSED, abs=0.1)
    assert image.page.get_by_role("button", name="Detection 1 is another object").is_visible()


def test_a_drag_moves_the_image_and_explains_nothing(image: Image):
    image.drag((230, 280), (330, 330))
    assert image.queries() == []
    assert image.page.locator("#objects").is_hidden()
    image.click(330, 330)
    (query,) = image.queries()
    assert [float(query[name][0]) for name in ("x", "y")] == pytest.approx([230, 280], abs=3)


def test_a_drawn_box_and_a_detection_of_its_neighbour(image: Image):
    answer = image.draw(SUPPRESSED)
    assert answer.startswith("Detected: detection 1, cell 0.90")
    assert "IoU 0.54 with the object" in answer
    (query,) = image.queries()
    assert [float(value) for value in query["box"][0].split(",")] == pytest.approx(SUPPRESSED, abs=1)
    image.page.get_by_role("button", name="Detection 1 is another object").click()
    image.page.locator(".answer h3", has_text="Missed: suppressed").wait_for()
    answer = image.answer()
    assert "at no threshold: NMS suppresses every box that fits the object" in answer
    assert re.search(r"Suppressed by\s+detection 1, cell 0\.90 IoU 0\.5\d with the best box", answer)
    assert image.causes() == ["suppressed", "detected"]
    involved = image.page.get_by_role("button", name="detection 1, cell 0.90")
    involved.hover()
    assert image.page.locator("#found button.on").count() == 1
    involved.click()
    image.page.locator(".answer h3", has_text="Detected: detection 1").wait_for()


def test_handles_change_the_box(image: Image):
    image.draw((250.0, 250.0, 360.0, 360.0))
    image.drag((250, 250), (300, 300))
    image.answer()
    box = [float(value) for value in image.queries()[-1]["box"][0].split(",")]
    assert box == pytest.approx(LOW, abs=1.5)
    image.drag((360, 330), (400, 330))  # the right side only
    image.answer()
    assert [float(value) for value in image.queries()[-1]["box"][0].split(",")] == pytest.approx(
        (300, 300, 400, 360), abs=1.5
    )


def test_the_button_lets_the_next_drag_draw(image: Image):
    button = image.page.get_by_role("button", name="Draw a box")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    image.drag(LOW[:2], LOW[2:])
    assert image.answer().startswith("Missed: below the threshold")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    image.page.keyboard.press("Escape")
    assert button.get_attribute("aria-pressed") == "false"
    assert image.causes() == ["below the threshold"]


def test_levels_name_runner_up_classes_and_explain_a_box(image: Image):
    image.click(330, 330)
    image.page.get_by_text("All feature levels at this place").click()
    levels = image.page.locator(".levels-list").first.inner_text()
    assert levels.startswith("finest detail, about 100 px (P3)")
    assert "or cell 0.350" in levels
    assert "below the threshold" in levels
    assert image.page.get_by_text("1 more with scores below 0.001").is_visible()
    assert len(image.queries()) == 1
    image.page.locator(".proposal").first.click()
    image.page.locator(".answer h3", has_text="Missed: below the threshold").wait_for()
    assert len(image.queries()) == 2


def test_a_row_of_the_list_is_explained(image: Image):
    image.page.locator("#found button").nth(1).click()
    assert image.answer().startswith("Detected: detection 2, platelet 0.80")


def test_keys_explain_draw_and_return(image: Image):
    page = image.page
    page.locator("#canvas").focus()
    page.keyboard.press("Enter")  # the middle of the view
    image.answer()
    assert [float(image.queries()[-1][name][0]) for name in ("x", "y")] == pytest.approx([320, 240], abs=1)
    page.keyboard.press("Escape")
    assert image.visit.focused() == "canvas"
    assert page.locator("#objects").is_hidden()
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    image.answer()
    assert float(image.queries()[-1]["y"][0]) > 245
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    for key in ("ArrowRight", "ArrowUp"):
        page.keyboard.press(f"Shift+{key}")
    page.keyboard.press("Enter")
    image.answer()
    x1, _, x2, _ = (float(value) for value in image.queries()[-1]["box"][0].split(","))
    assert x2 - x1 > 20
    assert page.evaluate("document.activeElement.className") == "answer"
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")  # stops drawing
    requests = len(image.queries())
    page.keyboard.press("Escape")
    assert len(image.queries()) == requests


def test_a_changed_threshold_changes_the_causes(image: Image):
    image.draw(LOW)
    assert image.causes() == ["below the threshold"]
    image.visit.slide(0.3)
    image.page.locator(".cause", has_text="detected").wait_for()
    assert image.queries()[-1]["threshold"] == ["0.3000"]
    image.page.get_by_role("button", name="Remove object 1").click()
    assert image.page.locator("#objects").is_hidden()
    assert image.visit.focused() == "canvas"


def test_the_evidence_is_drawn(image: Image):
    image.draw(FOUND)
    assert (0, 0, 0) in image.visit.colors()  # the border of the box
