"""A broken set-up for each finding: what is wrong with the labels is named, and sound ones are left in peace."""

import dataclasses

import numpy as np
import pytest

from retinanet.analysis.diagnose import diagnose
from tests.analysis.made import made_data, scattered


def found_in(data, *, score=0.9, noise=0.02, seed=0):
    """Return the detections of a good model: every object, its box a little off."""
    rng = np.random.default_rng(seed)
    rows = []
    for record in data.records:
        for box, label in zip(record.boxes_G4, record.labels_G, strict=True):
            sides = np.tile(box[2:] - box[:2], 2)
            x1, y1, x2, y2 = box + rng.normal(0, noise, 4) * sides
            rows.append(
                {
                    "image_id": record.image_id,
                    "category_id": data.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    return rows


def changed(data, *, boxes=None, labels=None):
    records = tuple(
        dataclasses.replace(
            r,
            boxes_G4=boxes(r.boxes_G4) if boxes else r.boxes_G4,
            labels_G=labels(r.labels_G) if labels else r.labels_G,
        )
        for r in data.records
    )
    return dataclasses.replace(data, records=records)


DATA = scattered(200, sides=(30, 80), classes=4, images=50)


def kinds(findings):
    return [finding.kind for finding in findings]


def test_sound_labels_are_left_in_peace():
    assert diagnose(DATA, found_in(DATA)) == []
    assert diagnose(DATA, found_in(DATA, noise=0.1)) == [], "a mediocre model is no fault of the labels"


@pytest.mark.parametrize("shift", [1, 3])
def test_labels_shifted_by_one(shift):
    """The labels of every class say the one before (or, cyclically, after)."""
    labels = changed(DATA, labels=lambda k: (k - shift) % 4)
    (finding,) = diagnose(labels, found_in(DATA))
    assert finding.kind == "labels shifted"
    assert finding.severity == "error"
    assert f"{shift} further on" in finding.what
    assert len(finding.where) == 4


def test_two_classes_swapped():
    swap = np.array([1, 0, 2, 3])
    (finding,) = diagnose(changed(DATA, labels=lambda k: swap[k]), found_in(DATA))
    assert finding.kind == "classes swapped"
    assert "c0 is found as c1" in finding.where[0]


def test_one_class_taken_for_another():
    merge = np.array([1, 1, 2, 3])
    rows = found_in(DATA)
    for row in rows:
        row["category_id"] = int(merge[row["category_id"] - 1]) + 1
    assert "class taken for another" in kinds(diagnose(DATA, rows))


def test_boxes_shifted():
    move = np.array([12.0, 0, 12, 0])
    (finding,) = diagnose(changed(DATA, boxes=lambda b: b + move), found_in(DATA))
    assert finding.kind == "boxes shifted"
    assert "to the right" in finding.what
    assert finding.what.split()[4].startswith("+")


def test_boxes_drawn_wider():
    def wider(boxes):
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * 1.3
        return np.concatenate([middle - half, middle + half], axis=1)

    (finding,) = diagnose(changed(DATA, boxes=wider), found_in(DATA))
    assert finding.kind == "boxes of another size"
    assert "1.30 times as wide" in finding.what or "1.29" in finding.what or "1.31" in finding.what


@pytest.mark.parametrize(
    ("boxes", "kind"),
    [
        (lambda b: b * 0.5, "boxes of another size of image"),
        (lambda b: b * 1.6, "boxes of another size of image"),
        (lambda b: np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], axis=1), "corners taken for sizes"),
        (lambda b: b[:, [1, 0, 3, 2]], "x and y swapped"),
    ],
)
def test_labels_in_another_frame(boxes, kind):
    """Labels of resized images; corners where the format wants sizes; y before x. Nothing else is then said."""
    (finding,) = diagnose(changed(DATA, boxes=boxes), found_in(DATA))
    assert finding.kind == kind
    assert finding.severity == "error"


def test_objects_that_nobody_labelled():
    """A third of class 0 lost its labels, and class 3 all of them."""
    rng = np.random.default_rng(0)
    records = []
    for r in DATA.records:
        keep = (r.labels_G != 3) & ((r.labels_G != 0) | (rng.random(len(r.labels_G)) > 0.33))
        records.append(
            dataclasses.replace(
                r,
                boxes_G4=r.boxes_G4[keep],
                labels_G=r.labels_G[keep],
                crowd_G=r.crowd_G[keep],
                areas_G=r.areas_G[keep],
            )
        )
    findings = diagnose(dataclasses.replace(DATA, records=tuple(records)), found_in(DATA))
    assert set(kinds(findings)) == {"unlabelled class", "unlabelled objects"}
    (none,) = [f for f in findings if f.kind == "unlabelled class"]
    assert "c3" in none.what
    assert "not one object of it" in none.what


def test_a_class_that_is_never_found():
    rows = [row for row in found_in(DATA) if row["category_id"] != 2]
    (finding,) = diagnose(DATA, rows)
    assert finding.kind == "class never found"
    assert finding.where[0].startswith("c1: 0 of")


def test_a_model_that_finds_nothing():
    assert kinds(diagnose(DATA, [])) == ["nothing found"]
    assert kinds(diagnose(DATA, found_in(DATA, score=0.06))) == ["nothing found"]


def test_trained_without_the_prior():
    assert kinds(diagnose(DATA, found_in(DATA), train_config={"prior": 0.5})) == ["no prior"]
    assert kinds(diagnose(DATA, found_in(DATA), train_config={"prior": 0.01})) == []


def test_too_little_to_say_anything():
    data = made_data([[(0, 10, 10, 50, 50)]])
    assert diagnose(data, found_in(data)) == []
    assert diagnose(made_data([[]]), []) == []
