"""The miss map in a report: counts, commands and thumbnails of each loss; readable by keyboard and screen reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retinanet.report.miss_map as drawing
from retinanet.analysis.miss_map import miss_map
from retinanet.analysis.miss_remedies import ModelFiles
from retinanet.analysis.result_errors import errors_from_results
from retinanet.data import DetectionData, Record
from retinanet.evaluate.per_image import items_from_results
from retinanet.report import Report
from retinanet.report.miss_map import miss_map_section
from tests.accessibility import violations_on_all_screens
from tests.browser import browser
from tests.report.test_html import Page, assert_self_contained

__all__ = ["browser"]

BOX = np.array([20.0, 20, 60, 60])
FILES = ModelFiles(model=Path("runs/a/best.ckpt"), data=Path("val <1>.json"))


def written(folder: Path, *, images: int = 3, missing: bool = False) -> Page:
    """Return a report with one image for each object: class <a> is found, missed below the threshold, or as b."""
    records, rows = [], []
    for number in range(images):
        path = folder / f"{number}.png"
        if not missing:
            Image.new("RGB", (100, 80), (90, 120, 90)).save(path)
        records.append(
            Record(
                path=path,
                width=100,
                height=80,
                boxes_G4=np.stack([BOX]),
                labels_G=np.zeros(1, np.int64),
                crowd_G=np.zeros(1, bool),
                areas_G=np.full(1, 1600.0),
                annotation_ids=(number + 1,),
                image_id=number,
            )
        )
        label, score = ((0, 0.9), (0, 0.4), (1, 0.8))[number % 3]
        rows.append({"image_id": number, "category_id": label, "bbox": [20, 20, 40, 40], "score": score})
    rows.append({"image_id": 0, "category_id": 1, "bbox": [70, 2, 20, 20], "score": 0.7})
    data = DetectionData(records=tuple(records), classes=("<a>", "b"), category_ids=(0, 1), source=folder)
    items = items_from_results(data, rows)
    report = Report(title="Test")
    miss_map_section(report, miss_map(errors_from_results(data, items, threshold=0.5), items, FILES))
    path = report.write(folder / "r.html")
    return assert_self_contained(path.read_text())


def test_counts_commands_and_thumbnails_of_each_loss(tmp_path: Path) -> None:
    page = written(tmp_path)
    text = " ".join(page.text.split())
    for part in (
        "<a>: 1 of 3 found (33%)",
        "1 below the threshold",
        "1 taken by b",
        "of the right class: found",
        "Detected as: b (1).",
        "With a threshold of 0.4 instead of 0.5, 1 more object is found",
        "retinanet predict runs/a/best.ckpt",
        "retinanet check runs/a/best.ckpt 'val <1>.json' --hard",
        "b: no labelled objects",
        "1 detection is probably an unlabelled object",
        "This map follows the detections alone.",
    ):
        assert part in text, part
    assert len(page.all("img")) == 3, "two misses and the unlabelled object"
    assert all(image["alt"] for image in page.all("img"))


def test_images_are_limited_and_missing_files_leave_the_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven objects of each loss: six thumbnails of each, or one of each if the size is limited."""
    (tmp_path / "all").mkdir()
    (tmp_path / "few").mkdir()
    (tmp_path / "none").mkdir()
    page = written(tmp_path / "all", images=33)
    assert len(page.all("img")) == 2 * drawing.THUMBNAILS + 1
    assert "5 more are not shown." in page.text
    size = max(len(image["src"] or "") for image in page.all("img"))
    monkeypatch.setattr(drawing, "MAX_BYTES", 4 * size)
    assert 3 <= len(written(tmp_path / "few", images=33).all("img")) <= 5
    page = written(tmp_path / "none", images=33, missing=True)
    assert not page.all("img")
    assert "11 taken by b" in page.text


@pytest.mark.slow
def test_the_map_is_accessible_and_opens_by_keyboard(browser, tmp_path: Path) -> None:
    written(tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / "r.html").as_uri())
    loss = page.locator(".loss summary").first
    loss.focus()
    page.keyboard.press("Enter")
    assert page.locator(".loss details").first.get_attribute("open") is not None
    assert page.locator(".thumbnails img").first.is_visible()
    for summary in page.locator(".loss summary").all()[1:]:
        summary.click()
    assert violations_on_all_screens(page) == []
    page.close()
