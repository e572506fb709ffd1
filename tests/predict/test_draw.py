"""Drawing detections on images."""

from __future__ import annotations

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from retinanet.class_styles import class_styles
from retinanet.evaluate.per_image import overlaps
from retinanet.predict.draw import draw
from retinanet.predict.drawn_boxes import line_widths
from retinanet.predict.drawn_labels import font_sizes, label_places
from retinanet.predict.drawn_legend import draw_legend, legend_lines


def test_draw_marks_detections_above_the_threshold() -> None:
    image = Image.new("RGB", (400, 300), (128, 128, 128))
    detections = sv.Detections(
        xyxy=np.array([[50, 100, 150, 200], [250, 100, 350, 200]], np.float32),
        confidence=np.array([0.9, 0.3], np.float32),
        class_id=np.array([0, 1]),
        data={"class_name": np.array(["cell", "Zelle"])},
    )
    pixels = np.asarray(draw(image, detections, threshold=0.5))
    assert pixels.shape == (300, 400, 3)
    assert (np.asarray(image) == 128).all()  # the given image does not change
    changed = (pixels != 128).any(axis=2)
    assert changed[150, 50]
    assert not changed[150, 100]  # inside the box
    assert not changed[:, 200:].any()
    both = np.asarray(draw(image, detections))
    assert (both[150, 250] != 128).any()
    assert both[150, 50].tolist() != both[150, 250].tolist()  # each class has its own colour


@pytest.mark.parametrize("size", [(1, 1), (3000, 20), (2400, 1800)])
def test_draw_on_any_size(size: tuple[int, int]) -> None:
    whole = sv.Detections(
        xyxy=np.array([[0, 0, *size]], np.float32), confidence=np.array([0.9]), class_id=np.array([300])
    )
    assert draw(Image.new("RGB", size), whole).size == size
    assert draw(Image.new("RGB", size), whole[:0]).size == size  # type: ignore[arg-type]


def detections_of(boxes: list[list[float]], names: list[str]) -> sv.Detections:
    return sv.Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        confidence=np.linspace(0.5, 0.9, len(names), dtype=np.float32),
        class_id=np.arange(len(names)),
        data={"class_name": np.array(names)},
    )


def test_a_class_looks_alike_in_all_images_of_a_model() -> None:
    """Without the names of all classes, the style of a class can differ between images with different classes."""
    classes = [f"class {i}" for i in range(12)]
    blank = Image.new("RGB", (200, 200), (128, 128, 128))
    box, far = [20, 60, 80, 120], [120, 120, 180, 180]
    for name in classes:
        alone = np.asarray(draw(blank, detections_of([box], [name]), classes=classes))
        for other in classes:
            both = np.asarray(draw(blank, detections_of([far, box], [other, name]), classes=classes))
            assert (both[62:125, 15:85] == alone[62:125, 15:85]).all()


def test_a_small_object_stays_visible() -> None:
    """Line, casing and label of the object and of its neighbours lie outside of the object."""
    white = Image.new("RGB", (300, 300), (255, 255, 255))
    small = [[x, y, x + 4, y + 4] for x in (100, 140, 180) for y in (100, 130)]
    pixels = np.asarray(draw(white, detections_of([*small, [20, 20, 280, 280]], ["a"] * 7)))
    for x1, y1, x2, y2 in small:
        assert (pixels[y1:y2, x1:x2] == 255).all()
        assert (pixels[y1 - 1, x1:x2] != 255).any()


def test_places_of_labels_hide_nothing() -> None:
    """Places lie inside the image, apart from each other, and cover at most 15 % of any box."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 380, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 60, (60, 2))], axis=1)
    places = label_places(boxes, [(40, 11)] * 60, (400, 400))
    placed = np.array([place for place in places if place is not None])
    assert len(placed) > 10
    assert (placed >= 0).all()
    assert (placed <= 400).all()
    assert (placed[:, 2:] - placed[:, :2] == (40, 11)).all()
    overlap, _ = overlaps(placed, placed)
    assert (overlap[~np.eye(len(placed), dtype=bool)] == 0).all()
    assert (overlaps(boxes, placed)[1] <= 0.15 + 1e-9).all()  # intersection by the area of the box


def test_the_label_of_the_highest_score_has_the_first_choice_of_a_place() -> None:
    same = np.array([[50.0, 50, 150, 150]] * 9)
    places = label_places(same, [(60, 12)] * 9, (200, 200))
    assert places[8] == (50, 38, 110, 50)  # above the box
    assert places[7] == (50, 150, 110, 162)  # below the box
    assert places[0] is None


def test_line_and_font_follow_the_size_of_object_and_image() -> None:
    """Line: min(shorter side of the image / 300, of the object / 10). Font: min(image / 38, object / 3), 9 at least."""
    boxes = np.array([[0.0, 0, 5, 50], [0, 0, 60, 90], [0, 0, 900, 900]])
    assert line_widths(boxes, (3000, 1800)).tolist() == [1, 6, 6]
    assert line_widths(boxes, (640, 480)).tolist() == [1, 2, 2]
    assert font_sizes(boxes, (3000, 1900)) == [9, 20, 50]
    assert font_sizes(boxes, (640, 480)) == [9, 13, 13]


def test_a_crowd_has_boxes_and_a_legend_but_no_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    legends: list[list[str]] = []
    monkeypatch.setattr("retinanet.predict.draw.draw_legend", lambda *args: legends.append(args[2]))
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    boxes = [[x, y, x + 9, y + 9] for x in range(5, 190, 10) for y in range(5, 190, 10)]
    crowd = detections_of(boxes, ["cell"] * len(boxes))
    assert np.unique(np.asarray(draw(grey, crowd)).reshape(-1, 3), axis=0).shape[0] == 3  # grey, colour and casing
    assert legends == [["cell"] * len(boxes)]
    draw(grey, detections_of(boxes[:1], ["cell"]))
    assert len(legends) == 1  # a label that is drawn needs no legend


@pytest.mark.parametrize(
    ("names", "max_lines", "lines"),
    [
        (["a", "b", "b"], 9, ["b 2", "a 1"]),
        (["a", "a", "a", "b", "b", "c"], 2, ["a 3", "2 other classes 3"]),
        (["a", "b"], 0, []),
    ],
)
def test_the_legend_counts_the_detections_of_each_class(names: list[str], max_lines: int, lines: list[str]) -> None:
    styles = class_styles(names)
    found = legend_lines(names, [styles[name] for name in names], max_lines=max_lines)
    assert [text for text, _ in found] == lines


def test_the_legend_lies_in_the_emptiest_corner() -> None:
    black, styles = Image.new("RGB", (300, 200), (0, 100, 0)), class_styles(["cell"])
    boxes = np.array([[150.0, 0, 300, 100], [0, 0, 150, 100], [0, 100, 150, 200]])
    draw_legend(black, boxes, ["cell"] * 3, [styles["cell"]] * 3)
    changed = (np.asarray(black) != (0, 100, 0)).any(axis=2)
    assert changed[190, 290]
    assert not changed[:100].any()
    assert not changed[:, :150].any()
