"""Test the web page's threshold, its classes, the objects that it counts, its labels and its downloads."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from retinanet.class_styles import class_styles
from tests.serve.fakes import CLASSES, expected
from tests.serve.rounding import rounded
from tests.serve.visit import Visit, browser, png, server, visit

__all__ = ["browser", "server", "visit"]

CELL, PLATELET = (ImageColor.getrgb(class_styles(CLASSES)[name].color) for name in CLASSES[:2])
"""Colours of the first and the second class."""
WHITE = (255, 255, 255)


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
def test_the_tuned_threshold_of_each_class_is_the_start(visit: Visit):
    page = visit.page
    tuned = {"aim": "recall=0.9", "thresholds": [0.95, 0.5, 0.01], "sentence": "A promise."}
    visit.model(tuned=tuned)
    visit.add(("a.png", png(200, 640, 480)))  # scores 0.9, 0.6 and 0.3
    numbers = page.locator("#classes .number")
    assert numbers.all_inner_texts() == ["0", "1", "1"]
    assert page.get_by_label("Tuned thresholds, one for each class: 0.01 to 0.95 (recall=0.9)").is_checked()
    assert page.get_by_text("A promise.").is_visible()
    assert page.locator("#threshold-value").inner_text() == "tuned, by class"
    assert page.locator("#ticks i").count() == 3
    assert histogram(visit) == (2, 1)
    assert any("threshold=0.01&" in url for url in visit.requests), "the page needs the detections above 0.01"
    visit.slide(0.25)  # one threshold for all classes
    assert numbers.all_inner_texts() == ["1", "1", "1"]
    assert not page.locator("#tuned").is_checked()
    page.locator("#tuned").check()
    assert numbers.all_inner_texts() == ["0", "1", "1"]
    page.locator("#tuned").uncheck()
    assert page.locator("#threshold").input_value() == "0.25"


@pytest.mark.slow
def test_one_tuned_threshold_is_the_start_of_the_slider(visit: Visit):
    page = visit.page
    visit.model(tuned={"aim": "f1", "thresholds": [0.617] * 3, "sentence": "No promise."})
    visit.add(("a.png", png(200, 640, 480)))
    assert page.locator("#threshold-value").inner_text() == "tuned, 0.62"
    assert page.locator("#threshold").input_value() == "0.62"
    assert page.locator("#ticks i").count() == 1
    assert visit.count() == "1 detection"  # 0.6 lies below 0.617


@pytest.mark.slow
def test_many_tuned_thresholds_are_one_mark(visit: Visit):
    style = {"color": "#112233", "casing": "#ffffff", "dash": []}
    tuned = {"aim": "f1", "thresholds": [0.2 + 0.01 * k for k in range(40)], "sentence": "No promise."}
    visit.model(classes=[f"class {k}" for k in range(40)], styles=[style] * 40, tuned=tuned)
    assert [mark.get_attribute("title") for mark in visit.page.locator("#ticks i").all()] == ["tuned: 0.200 to 0.590"]


@pytest.mark.slow
def test_without_tuned_thresholds_the_served_threshold_is_the_start(visit: Visit):
    assert visit.page.locator("#tuned-line").is_hidden()
    assert visit.page.locator("#ticks").is_hidden()
    assert visit.page.locator("#threshold-value").inner_text() == "0.50"
    visit.model(draw_threshold=0.8)
    visit.add(("a.png", png(200, 640, 480)))
    assert visit.page.locator("#threshold-value").inner_text() == "0.80"
    assert visit.count() == "1 detection"


def histogram(visit: Visit) -> tuple[int, int]:
    """Return the numbers of detections above and below the threshold that the text of the histogram names."""
    text = visit.page.locator("#histogram").get_attribute("aria-label")
    start = "Scores of the detections of this image: "
    assert text is not None
    assert text.startswith(start)
    kept, out = text.removeprefix(start).split(", ")
    return int(kept.removesuffix(" above the threshold")), int(out.removesuffix(" below"))


@pytest.mark.slow
def test_of_many_classes_those_with_the_highest_scores_come_first(visit: Visit):
    style = {"color": "#112233", "casing": "#ffffff", "dash": []}
    visit.model(classes=[f"class {k}" for k in range(20)], styles=[style] * 20)
    visit.answer((2, 0.3, (0.0, 0.0, 9.0, 9.0)), (1, 0.9, (20.0, 0.0, 29.0, 9.0)))
    visit.add(("a.png", png(200, 640, 480)))
    lines = [line.inner_text().split("\n") for line in visit.page.locator("#classes li").all()[:4]]
    assert lines == [["class 1", "1"], ["class 2", "0"], ["class 0", "0"], ["class 3", "0"]]


@pytest.mark.slow
def test_the_histogram_follows_the_threshold_and_the_classes(visit: Visit):
    page = visit.page
    visit.answer(*[(k % 3, 0.05 + 0.05 * k, (10.0 * k, 0.0, 10.0 * k + 9, 9.0)) for k in range(18)])
    visit.add(("a.png", png(200, 640, 480)))
    assert histogram(visit) == (8, 10)
    assert page.locator("#bars .kept").count() + page.locator("#bars .out").count() >= 17
    visit.slide(0.8)
    assert histogram(visit) == (2, 16)
    assert page.locator("#threshold").get_attribute("aria-valuetext") == "0.80, 2 detections"
    page.get_by_role("checkbox", name="platelet").uncheck()
    assert sum(histogram(visit)) == 12


@pytest.mark.slow
def test_bins_count_every_detection_once(visit: Visit):
    """Scores of 0.02, 0.5 and 1 lie in the first, the middle and the last of ten parts of [0, 1]."""
    found = visit.page.evaluate(
        """async () => {
            const { bins } = await import("./histogram.js");
            const detections = [0.02, 0.5, 0.55, 1].map(score => ({ score }));
            return bins(detections, ({ score }) => score > 0.5, { min: 0, max: 1, count: 10 });
        }"""
    )
    assert found == [{"kept": int(k in (5, 9)), "out": int(k in (0, 5))} for k in range(10)]


@pytest.mark.slow
def test_detections_of_several_classes_at_one_place_are_one_object(visit: Visit):
    """Hand-worked: boxes of 100 x 100 that are shifted by 10 have IoU 90 / 110 = 0.82, by 20: 80 / 120 = 0.67."""
    objects = visit.page.evaluate(
        """async () => {
            const { asObjects, labelOf, countOf } = await import("./groups.js");
            const at = (x, class_id, score) => ({ box: [x, 0, x + 100, 100], class_id, class: "abc"[class_id], score });
            const objects = asObjects([at(10, 1, 0.61), at(0, 0, 0.63), at(20, 2, 0.6), at(10, 0, 0.5), at(5, 1, 0.4)]);
            return [objects.map(one => [labelOf(one), one.box[0]]), countOf(objects), countOf(asObjects([]))];
        }"""
    )
    # c at 20 has IoU 0.67 with the best detection, at 0. An object has one detection of each class: a at 10 and b at 5
    # (85 / 115 = 0.74) belong to the object of c, because the first object has an a and a b.
    assert objects[0] == [["a 0.63, or b 0.61", 0], ["c 0.60, or a 0.50, or 1 more", 20]]
    assert objects[1] == "2 objects from 5 detections"
    assert objects[2] == "0 detections"


@pytest.mark.slow
def test_a_second_opinion_is_shown_once_and_downloaded(visit: Visit):
    page = visit.page
    box, near, far = (100.0, 100.0, 300.0, 300.0), (104.0, 100.0, 304.0, 300.0), (400.0, 10.0, 500.0, 60.0)
    visit.answer((0, 0.63, box), (1, 0.61, near), (2, 0.6, far))
    visit.add(("a.png", png(200, 640, 480)))
    assert visit.count() == "2 objects from 3 detections"
    assert page.locator("#classes .number").all_inner_texts() == ["1", "0", "1"]
    for name in (
        "detection 1, class cell, score 0.63, or class platelet, score 0.61",
        "detection 2, class white, cell, score 0.60",
    ):
        assert page.get_by_role("button", name=name, exact=True).count() == 1
    assert PLATELET not in visit.colors()
    page.get_by_role("checkbox", name="cell").first.uncheck()  # the second opinion is now the first
    assert visit.count() == "2 detections"
    assert page.locator("#classes .number").all_inner_texts() == ["1", "1", "1"]
    assert PLATELET in visit.colors()
    page.get_by_role("checkbox", name="cell").first.check()
    with page.expect_download() as waiting:
        page.click("#json")
    content = json.loads(Path(waiting.value.path()).read_bytes())
    assert [one["class_id"] for one in content["images"][0]["detections"]] == [0, 1, 2]


@pytest.mark.slow
def test_labels_of_a_crowd_appear_on_zoom_and_on_hover(visit: Visit):
    page = visit.page
    places = [(20.0 * (k % 32), 20.0 * (k // 32)) for k in range(160)]
    visit.answer(*[(0, 0.9, (x, y, x + 15, y + 15)) for x, y in places])
    visit.add(("a.png", png(200, 640, 480)))
    note = page.locator("#labels-text")
    note.wait_for()
    assert note.inner_text() == "160 labels do not fit: zoom in, or point at a box."
    page.locator("#found button").first.focus()  # as the mouse on a box
    page.get_by_text("159 labels do not fit").wait_for()
    page.locator("#canvas").hover(position={"x": 40, "y": 40})
    for _ in range(6):
        page.mouse.wheel(0, -300)
    note.wait_for(state="hidden")
    page.click("#fit")
    note.wait_for()
    page.locator("#labels").uncheck()
    note.wait_for(state="hidden")


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
