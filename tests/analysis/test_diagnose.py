"""Diagnosis of labels by a model's detections: one kind of wrong labels for each finding, and correct labels."""

import dataclasses

import numpy as np
import pytest

from retinanet.analysis.diagnose import diagnose
from tests.analysis.datasets import dataset_from_boxes, random_dataset
from tests.analysis.findings import finding_kinds


def detections_of(data, *, score=0.9, noise=0.02, seed=0):
    """Return the detections of a good model: one for each object, with a slightly inaccurate box."""
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


def with_changes(data, *, boxes=None, labels=None):
    records = tuple(
        dataclasses.replace(
            r,
            boxes_G4=boxes(r.boxes_G4) if boxes else r.boxes_G4,
            labels_G=labels(r.labels_G) if labels else r.labels_G,
        )
        for r in data.records
    )
    return dataclasses.replace(data, records=records)


DATA = random_dataset(200, sides=(30, 80), classes=4, images=50)


def test_correct_labels_have_no_findings():
    assert diagnose(DATA, detections_of(DATA)) == []
    assert diagnose(DATA, detections_of(DATA, noise=0.1)) == [], "the model's boxes are inaccurate"


@pytest.mark.parametrize("shift", [1, 3])
def test_shifted_class_ids(shift):
    """A shift by 3 of 4 classes is a shift by 1 in the other direction."""
    labels = with_changes(DATA, labels=lambda k: (k - shift) % 4)
    (finding,) = diagnose(labels, detections_of(DATA))
    assert finding.kind == "labels shifted"
    assert finding.severity == "error"
    assert f"detected as the class {shift} later" in finding.what
    assert len(finding.where) == 4


def test_two_classes_swapped():
    swap = np.array([1, 0, 2, 3])
    (finding,) = diagnose(with_changes(DATA, labels=lambda k: swap[k]), detections_of(DATA))
    assert finding.kind == "classes swapped"
    assert "c0 is detected as c1" in finding.where[0]


def test_a_class_detected_as_another():
    merge = np.array([1, 1, 2, 3])
    rows = detections_of(DATA)
    for row in rows:
        row["category_id"] = int(merge[row["category_id"] - 1]) + 1
    assert "class taken for another" in finding_kinds(diagnose(DATA, rows))


def test_boxes_shifted():
    move = np.array([12.0, 0, 12, 0])
    (finding,) = diagnose(with_changes(DATA, boxes=lambda b: b + move), detections_of(DATA))
    assert finding.kind == "boxes shifted"
    assert "to the right" in finding.what
    assert "detections by +" in finding.what


def test_boxes_drawn_wider():
    def wider(boxes):
        centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * 1.3
        return np.concatenate([centre - half, centre + half], axis=1)

    (finding,) = diagnose(with_changes(DATA, boxes=wider), detections_of(DATA))
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
    """Labels of resized images, corners instead of sizes, y before x: the diagnosis has only this finding."""
    (finding,) = diagnose(with_changes(DATA, boxes=boxes), detections_of(DATA))
    assert finding.kind == kind
    assert finding.severity == "error"


def test_unlabelled_objects():
    """The labels lack a third of the objects of class 0 and all objects of class 3."""
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
    findings = diagnose(dataclasses.replace(DATA, records=tuple(records)), detections_of(DATA))
    assert set(finding_kinds(findings)) == {"unlabelled class", "unlabelled objects"}
    (finding,) = [f for f in findings if f.kind == "unlabelled class"]
    assert "c3" in finding.what
    assert "no object of this class" in finding.what


def test_a_class_that_is_never_detected():
    rows = [row for row in detections_of(DATA) if row["category_id"] != 2]
    (finding,) = diagnose(DATA, rows)
    assert finding.kind == "class never found"
    assert finding.where[0].startswith("c1: 0 of")


def test_a_model_without_confident_detections():
    assert finding_kinds(diagnose(DATA, [])) == ["nothing found"]
    assert finding_kinds(diagnose(DATA, detections_of(DATA, score=0.06))) == ["nothing found"]


def test_a_model_trained_with_a_high_prior():
    assert finding_kinds(diagnose(DATA, detections_of(DATA), train_config={"prior": 0.5})) == ["no prior"]
    assert finding_kinds(diagnose(DATA, detections_of(DATA), train_config={"prior": 0.01})) == []


def test_too_few_objects_give_no_findings():
    data = dataset_from_boxes([[(0, 10, 10, 50, 50)]])
    assert diagnose(data, detections_of(data)) == []
    assert diagnose(dataset_from_boxes([[]]), []) == []
