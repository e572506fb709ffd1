"""The explorable evaluation without its script: first screen, images, confusion matrix, and the limits on its data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.analysis.next_steps import NextStep
from retinanet.analysis.outcomes import Outcomes
from retinanet.evaluate.per_image import ImageResults
from retinanet.report import Report, embedded_images, explorer
from retinanet.report.confusion_table import TABLE_CLASSES, intro
from retinanet.report.explorer import Explorer, Run
from retinanet.report.verdict import verdict
from tests.evaluate.image_results import make
from tests.report.test_html import Page, assert_self_contained

A, B = (10, 10, 30, 30), (50, 10, 70, 30)
CLASSES = ("cat", "dog")


def written(
    items: list[ImageResults], *others: list[ImageResults], classes: Any = CLASSES
) -> tuple[Page, Any, Explorer]:
    """Return the page of a report with an explorer, the data of its script, and the explorer."""
    report = Report("Report")
    runs = [
        Run(name=f"model {number}", outcomes=Outcomes(one, classes, threshold=0.5))
        for number, one in enumerate((items, *others), start=1)
    ]
    shown = Explorer(report, runs)
    shown.first_screen(["<i>verdict</i>"], [NextStep(reason="A reason", command="retinanet check 'a & b'")])
    shown.images_section(report.section("Images"))
    shown.confusion_section(report.section("Confusion matrix"))
    text = report.html()
    data = re.findall(r'<script type="application/json">(.*?)</script>', text)
    return assert_self_contained(text), json.loads(data[0]), shown


def test_the_first_screen_shows_counts_shares_and_commands_without_a_script() -> None:
    item = make([(*A, 0), (*B, 1)], [(*A, 0, 0.9), (*B, 0, 0.8), (80, 60, 90, 70, 1, 0.7), (80, 10, 90, 20, 1, 0.4)])
    page, data, _ = written([item])
    text = " ".join(page.text.split())
    assert "<i>verdict</i>" in text
    for part in ("Found 1 50 % of 2 objects", "Missed 1 50 % of 2 objects", "False 1 33 % of 3 detections"):
        assert part in text, part
    assert "Probably unlabelled 1 33 % of 3 detections" in text
    assert "Precision0.333 Recall0.500 F10.400" in text
    assert "A reason. retinanet check 'a & b'" in text
    assert "p.jpg: 1 found, 1 missed, 1 false, 1 probably unlabelled." in text
    assert (data["lowest"], data["runs"][0]["step"]) == (40, 50)
    hidden = {name for name, attributes in page.elements if "hidden" in attributes}
    assert {"input", "button", "form"} <= hidden  # without a script, no control is shown that does nothing


def test_the_static_boxes_are_told_apart_by_class_and_symbol() -> None:
    item = make([(*A, 0), (*B, 1)], [(*A, 0, 0.9), (*B, 0, 0.8), (80, 60, 90, 70, 1, 0.7)])
    boxes = embedded_images.static_boxes(Outcomes([item], CLASSES, threshold=0.5).images[0], 50, CLASSES)
    assert boxes["paths"]["found"] == "M10 10H30V30H10Z"
    assert sorted(boxes["paths"]) == ["false", "found", "missed", "unlabelled"]
    assert [text for _, _, text in boxes["labels"]] == ["× cat 0.80", "? dog 0.70", "× dog"]


def test_two_models_are_shown_side_by_side_with_each_image_once() -> None:
    first, second = make([(*A, 0)], [(*A, 0, 0.9)]), make([(*A, 0)], [(*B, 0, 0.9)])
    page, data, _ = written([first] * 3, [second] * 3)
    assert len([1 for name, _ in page.elements if name == "image"]) == 3
    assert len([1 for name, _ in page.elements if name == "use"]) == 3
    assert [run["name"] for run in data["runs"]] == ["model 1", "model 2"]
    assert "model 1 1 found, 0 missed, 0 false; model 2 0 found, 1 missed, 0 false, 1 probably unlabelled." in " ".join(
        page.text.split()
    )


def test_the_worst_images_come_first_and_random_ones_complete_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert embedded_images.choose_images([0, 3, 1, 3], [True] * 4) == ([1, 3, 2], [0])
    assert embedded_images.choose_images([0, 3, 1, 3], [True, False, True, True]) == ([3, 2], [0])
    monkeypatch.setattr(embedded_images, "MAX_IMAGES", 4)
    errors = [0, 5, 4, 3, 2, 1]
    worst, others = embedded_images.choose_images(errors, [True] * 6, seed=1)
    assert worst == [1, 2]
    assert len(others) == 2
    assert not {*worst} & {*others}


def test_images_beyond_the_limit_are_counted_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_images, "MAX_IMAGES", 4)
    wrong, right = make([(*A, 0)], []), make([(*A, 0)], [(*A, 0, 0.9)])
    page, data, _ = written([right, wrong, right, right, wrong, wrong, right])
    text = " ".join(page.text.split())
    assert "4 of 7 images are embedded: 2 with the most errors, and 2 random ones." in text
    assert "The counts and the confusion matrix cover all images." in text
    assert "Found 4 57 % of 7 objects" in text
    assert len(data["images"]) == 4


def test_images_are_embedded_once_and_within_the_limit_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    item = make([(*A, 0)], [])
    _, data, shown = written([item] * 20)
    sources = [embedded["source"] for embedded in data["images"]]
    assert sources[: embedded_images.STATIC] == [None] * embedded_images.STATIC  # these are in the page
    assert all(source.startswith("data:image/jpeg") for source in sources[embedded_images.STATIC :])
    assert shown.report.image_bytes > sum(len(embedded.source) for embedded in shown.embedded)
    monkeypatch.setattr(embedded_images, "MAX_BYTES", 3 * len(shown.embedded[0].source) + 5)
    assert len(written([item] * 20)[1]["images"]) == 3


def test_images_whose_files_are_missing_are_counted(tmp_path: Path) -> None:
    item = make([(*A, 0)], [(*A, 0, 0.9)])
    object.__setattr__(item, "image", tmp_path / "absent.jpg")
    page, data, _ = written([item, item])
    text = " ".join(page.text.split())
    assert "2 image files could not be found. The counts cover these images" in text
    assert "Found 2 100 % of 2 objects" in text
    assert data["images"] == []


def test_data_beyond_the_limit_starts_the_slider_at_a_higher_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    detections = [(80, 60, 90, 70, k % 2, 0.1 + 0.01 * k) for k in range(60)]
    items = [make([(*A, 0)], detections)]
    assert written(items)[1]["lowest"] == 10
    monkeypatch.setattr(explorer, "MAX_ROWS", 50)
    page, data, _ = written(items)
    lowest = data["lowest"]
    assert 10 < lowest < 60
    assert min(data["runs"][0]["false"]["step"]) >= lowest
    assert sum(len(data["runs"][0][table]["count"]) for table in ("objects", "false", "pairs")) <= 50
    assert f"Detections with a score below {lowest / 100:.2f} are left out" in page.text


def test_without_images_detections_or_classes_the_report_still_works() -> None:
    for items in ([], [make([], [])], [make([(*A, 3)], [])]):
        written(items, classes=())


def test_the_confusion_table_has_counts_shares_and_missed_objects() -> None:
    item = make([(*A, 0), (*B, 1), (10, 50, 30, 70, 1)], [(*A, 0, 0.9), (*B, 0, 0.8), (80, 60, 90, 70, 1, 0.7)])
    page, _, _ = written([item])
    text = " ".join(page.text.split())
    assert "Objectcatdogmissedcat1100%dog150%150%background1100%" in text.replace(" ", "")
    assert (
        "Most frequent mistakes at score threshold 0.50: 1 of class dog detected as cat; 1 of class dog missed; 1 "
        "detected as dog on background." in text
    )


def test_of_a_hundred_classes_the_most_confused_are_in_the_table() -> None:
    items = [make([(*A, k)], [(*A, k, 0.9)]) for k in range(100)] + [make([(*A, 3)], [(*A, 7, 0.9)])] * 5
    page, data, _ = written(items, classes=[f"class-{k}" for k in range(100)])
    assert f"Of 100 classes, the {TABLE_CLASSES} with the most errors are shown" in page.text
    assert data["tableClasses"] == TABLE_CLASSES
    assert "5 of class class-3 detected as class-7" in page.text
    assert len([1 for attributes in page.all("th") if attributes.get("scope") == "row"]) == TABLE_CLASSES + 1


@pytest.mark.parametrize(
    ("truth", "detections", "expected"),
    [
        ([(*A, 0)], [], ["At score threshold 0.50, no object is found."]),
        ([], [(*A, 0, 0.9)], ["The images have no objects. At score threshold 0.50, 1 detection remains."]),
        (
            [(*A, 0), (*B, 1)],
            [(*A, 0, 0.9), (*B, 1, 0.9)],
            [
                "At score threshold 0.50, all 2 classes are good: recall and precision are 0.9 or more.",
                "No object is missed, and no detection is false.",
            ],
        ),
        (
            [(*A, 0), (*B, 1)],
            [(*A, 0, 0.9), (*B, 1, 0.4)],
            [
                "At score threshold 0.50, 1 of 2 classes is good: cat (recall 1.00, precision 1.00).",
                "The largest loss: 1 of 1 object of class dog is missed. "
                "Most frequent kind: below the threshold (all).",
            ],
        ),
    ],
)
def test_the_verdict_names_what_is_good_and_the_largest_loss(truth: Any, detections: Any, expected: list[str]) -> None:
    assert verdict(Outcomes([make(truth, detections)], CLASSES, threshold=0.5)) == expected


def test_the_verdict_names_false_and_unlabelled_detections() -> None:
    part = (10, 10, 20, 20)  # a part of A
    outcomes = Outcomes([make([(*A, 0)], [(*A, 0, 0.9), (*part, 0, 0.8)])], ["cat"], threshold=0.5)
    assert verdict(outcomes)[1] == (
        "The largest loss: 1 of 2 detections is false. Most frequent kind: badly localised (all)."
    )
    far = [(80, 60, 90, 70, 0, 0.7), (60, 60, 70, 70, 0, 0.7)]
    outcomes = Outcomes([make([(*A, 0), (*B, 0)], [(*A, 0, 0.9), *far])], ["cat"], threshold=0.5)
    assert verdict(outcomes)[-1] == "2 detections are probably objects without a label: check the labels."
    assert intro(Outcomes([make([(*A, 0)], [(*A, 0, 0.9)])], ["cat"], threshold=0.5)).startswith(
        "There are no mistakes"
    )


def test_scores_and_positions_of_boxes_are_compact() -> None:
    item = make([(10.04, 10, 30, 30.96, 0)], [(*A, 0, 0.87654)])
    outcomes = Outcomes([item], ["cat"], threshold=0.5)
    embedded = embedded_images.EmbeddedImage(index=0, name="p", width=100, height=80, source="")
    data = embedded_images.image_data(embedded, [outcomes], 0, with_source=False)
    assert data["objects"] == [[10.0, 10.0, 30.0, 31.0, 0, 0, 0]]
    assert data["runs"][0]["detections"] == [[10.0, 10.0, 30.0, 30.0, 0, 876, 0, -1, 0, 0, 0]]
    many = make([], [(*A, 0, score) for score in np.linspace(0.1, 0.9, 400)])
    data = embedded_images.image_data(embedded, [Outcomes([many], ["cat"], threshold=0.5)], 0, with_source=False)
    scores = [row[5] for row in data["runs"][0]["detections"]]
    assert len(scores) == embedded_images.MAX_BOXES
    assert scores == sorted(scores, reverse=True)
