"""Metrics of LVIS and Open Images: hand-worked numbers, and equality with the `lvis` package."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet.evaluate import evaluate, evaluate_results
from retinanet.evaluate.federated import lvis_metrics, open_images_metrics, with_federated_fields
from tests.evaluate.random_detections import Rows, Truth, random_case

A, B = [10.0, 10, 40, 40], [100.0, 100, 40, 40]


def two_images(**second: Any) -> Truth:
    """Return two images and a class with an object in the first image. `second` is added to the second image."""
    return {
        "images": [{"id": 1, "neg_category_ids": [], "not_exhaustive_category_ids": []}, {"id": 2, **second}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": A}],
    }


ROWS = [
    {"image_id": 2, "category_id": 7, "bbox": A, "score": 0.9},
    {"image_id": 1, "category_id": 7, "bbox": A, "score": 0.8},
]


def test_a_detection_of_a_class_that_is_not_labelled_in_the_image_is_ignored() -> None:
    """If the second image is labelled for cats, its detection is wrong: precision 1/2 at every recall."""
    assert lvis_metrics(two_images(neg_category_ids=[]), ROWS).summary["AP"] == pytest.approx(1)
    assert lvis_metrics(two_images(neg_category_ids=[7]), ROWS).summary["AP"] == pytest.approx(0.5)
    both = two_images(neg_category_ids=[7], not_exhaustive_category_ids=[7])
    assert lvis_metrics(both, ROWS).summary["AP"] == pytest.approx(1)


def test_an_image_without_the_field_is_labelled_exhaustively() -> None:
    assert lvis_metrics(two_images(), ROWS).summary["AP"] == pytest.approx(0.5)


def test_without_fields_ap_is_that_of_coco() -> None:
    """Without crowd regions, which LVIS does not have."""
    truth, results = random_case(np.random.default_rng(3), images=8, crowd=0)
    coco, lvis = evaluate_results(truth, results), lvis_metrics(truth, results)
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        assert lvis.summary[name] == pytest.approx(getattr(coco, name), abs=1e-12), name
    assert lvis.per_class == pytest.approx({name: row.AP for name, row in coco.per_class.items()}, abs=1e-12)


def test_frequencies_are_counts_of_images_if_a_category_lacks_them() -> None:
    images = range(1, 102)
    counts = {1: 10, 2: 11, 3: 100, 4: 101}
    truth: Truth = {
        "images": [{"id": i} for i in images],
        "categories": [{"id": k, "name": f"class {k}"} for k in counts],
        "annotations": [{"image_id": i, "category_id": k, "bbox": A} for k, n in counts.items() for i in images[:n]],
    }
    truth["annotations"] += truth["annotations"][:1] * 5  # objects in one image: no further images
    found = lvis_metrics(truth, [])
    assert list(found.frequencies.values()) == ["r", "c", "c", "f"]
    assert (found.summary["APr"], found.summary["APf"]) == (0, 0)
    for category in truth["categories"]:
        category["frequency"] = "f"
    given = lvis_metrics(truth, [])
    assert set(given.frequencies.values()) == {"f"}
    assert given.summary["APr"] == -1


def test_at_most_300_detections_per_image_count() -> None:
    truth = two_images()
    wrong = [{"image_id": 1, "category_id": 7, "bbox": B, "score": 0.9}] * 299
    right = {"image_id": 1, "category_id": 7, "bbox": A, "score": 0.5}
    assert lvis_metrics(truth, [*wrong, right]).summary["AR"] == pytest.approx(1)
    assert lvis_metrics(truth, [*wrong, *wrong[:1], right]).summary["AR"] == 0


def test_repeated_class_names_keep_their_own_ap() -> None:
    truth = two_images()
    truth["categories"].append({"id": 9, "name": "cat"})
    truth["annotations"].append({"id": 2, "image_id": 1, "category_id": 9, "bbox": B})
    found = {"cat (id 7)": pytest.approx(1), "cat (id 9)": 0}
    rows = ROWS[1:]
    assert lvis_metrics(truth, rows).per_class == found
    assert open_images_metrics(truth, rows).per_class == found


def test_open_images_groups() -> None:
    """A group counts as found once; a second detection in it is ignored, and so is a crowd region, as a group."""
    truth = two_images()
    truth["annotations"].append({"id": 2, "image_id": 2, "category_id": 7, "bbox": [0, 0, 100, 100], "is_group_of": 1})
    second = {"image_id": 2, "category_id": 7, "bbox": [50, 50, 20, 20], "score": 0.85}
    assert open_images_metrics(truth, [*ROWS, second]).summary["AP50"] == pytest.approx(1)
    truth["annotations"][1] = {**truth["annotations"][1], "is_group_of": 0, "iscrowd": 1}
    assert open_images_metrics(truth, [*ROWS, second]).summary["AP50"] == pytest.approx(1)
    truth["annotations"][1]["iscrowd"] = 0  # an object that is missed, and two wrong detections before the right one
    assert open_images_metrics(truth, [*ROWS, second]).summary["AP50"] == pytest.approx(1 / 6)


def test_fields_come_from_the_coco_file(tmp_path: Path) -> None:
    truth = two_images(neg_category_ids=[7], not_exhaustive_category_ids=[])
    truth["categories"][0]["frequency"] = "c"
    truth["annotations"][0]["is_group_of"] = 1
    plain = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": A}],
    }
    file = tmp_path / "lvis.json"
    file.write_text(json.dumps(truth))
    assert with_federated_fields(plain, file) == truth
    assert with_federated_fields(plain, tmp_path) == plain


def lvis_case(rng: np.random.Generator) -> tuple[Truth, Rows]:
    """Return a random case with LVIS fields, a small limit of detections not being reached."""
    truth, results = random_case(rng, images=5, classes=6, crowd=0)
    ids = [category["id"] for category in truth["categories"]]
    for image in truth["images"]:
        present = {row["category_id"] for row in truth["annotations"] if row["image_id"] == image["id"]}
        absent = [i for i in ids if i not in present]
        image["neg_category_ids"] = [i for i in absent if rng.random() < 0.5]
        image["not_exhaustive_category_ids"] = [i for i in ids if rng.random() < 0.2]
    for category in truth["categories"]:
        category["frequency"] = str(rng.choice(["r", "c", "f"]))
    return truth, results


@pytest.mark.parametrize("cases", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_equals_the_lvis_package(cases: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install --no-deps lvis` (0.5.3) enables this test: its requirements include another build of OpenCV."""
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis 0.5.3 needs NumPy < 1.24
    lvis = pytest.importorskip("lvis")
    rng = np.random.default_rng(0)
    for _ in range(cases):
        truth, results = lvis_case(rng)
        if not results or not truth["annotations"]:
            continue
        file = tmp_path / "truth.json"
        file.write_text(json.dumps(truth))
        run = lvis.LVISEval(lvis.LVIS(str(file)), copy.deepcopy(results), "bbox")
        run.run()
        found = lvis_metrics(truth, results)
        for name, value in found.summary.items():
            key = f"{name}@300" if name.startswith("AR") else name
            assert value == pytest.approx(run.results[key], abs=1e-9), name


def test_the_fields_of_a_file_reach_the_evaluation(tmp_path: Path) -> None:
    """In a second image that is not labelled for cats, a detection of a cat is ignored by LVIS, and wrong for COCO."""
    truth = two_images(neg_category_ids=[], not_exhaustive_category_ids=[])
    for image in truth["images"]:
        image |= {"coco_url": f"http://images.cocodataset.org/val2017/{image['id']}.jpg", "width": 200, "height": 200}
    truth["categories"][0]["frequency"] = "f"
    (tmp_path / "lvis.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(ROWS))
    found = evaluate(tmp_path / "results.json", data=tmp_path / "lvis.json", metrics=("lvis",))
    assert found.further.lvis is not None
    assert found.further.lvis.summary["APf"] == pytest.approx(1)
    assert pytest.approx(0.5) == found.metrics.AP
