"""Comparison of models: differences with intervals, the objects that only one finds, names and the command."""

import json
from pathlib import Path

import numpy as np
import pytest

from retinanet.cli import main
from retinanet.data import DetectionData, Record
from retinanet.errors import ConfigError
from retinanet.evaluate.comparison import METRICS, _names, compare, differences, found_objects
from tests.report.test_html import assert_self_contained

SIDE, STEP = 400, 100
"""Side of the images, and distance of their objects, pixels."""


def scenes(images, rng):
    """Return images with up to 16 objects of three classes, far from each other."""
    records = []
    for number in range(1, images + 1):
        places = rng.permutation(16)[: rng.integers(2, 9)]
        corners = np.stack([places % 4, places // 4], axis=1) * STEP + rng.uniform(5, 20, (len(places), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(30, 70, (len(places), 2))], axis=1)
        records.append(
            Record(
                path=Path(f"{number}.png"),
                width=SIDE,
                height=SIDE,
                boxes_G4=boxes,
                labels_G=rng.integers(0, 3, len(places)),
                crowd_G=np.zeros(len(places), bool),
                areas_G=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
                annotation_ids=tuple(range(100 * number, 100 * number + len(places))),
                image_id=number,
            )
        )
    return DetectionData(records=tuple(records), classes=("a", "b", "c"), category_ids=(1, 2, 3), source=Path("made"))


def detections(data, rng):
    """Return a detection of most objects, with an error of a few pixels, and false detections."""
    rows = []
    for record in data.records:
        found = [
            (box + rng.normal(0, 3, 4), label) for box, label in zip(record.boxes_G4, record.labels_G, strict=True)
        ]
        found = [pair for pair in found if rng.random() < 0.9]
        scores = list(rng.beta(5, 2, len(found)))
        for _ in range(rng.integers(0, 3)):
            corner = rng.uniform(0, 300, 2)
            found.append((np.concatenate([corner, corner + 50]), rng.integers(0, 3)))
            scores.append(rng.beta(2, 4))
        for (box, label), score in zip(found, scores, strict=True):
            x1, y1, x2, y2 = box.tolist()
            row = {"image_id": record.image_id, "category_id": int(label) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            rows.append({**row, "score": float(score)})
    return rows


def jittered(rows, rng, sigma=0.02):
    """Return the detections with other scores."""
    return [{**row, "score": float(np.clip(row["score"] + rng.normal(0, sigma), 0.001, 0.999))} for row in rows]


def without_some(rows, rng, share):
    """Return the detections without a random share of these."""
    return [row for row in rows if rng.random() >= share]


def test_equal_results_have_no_difference():
    data = scenes(12, np.random.default_rng(0))
    rows = detections(data, np.random.default_rng(1))
    found = differences(data, rows, rows, resamples=100)
    assert [d.metric for d in found if not d.label] == [m for m in METRICS if m != "APl"], "no object is large"
    assert {d.label for d in found} == {"", "a", "b", "c"}
    assert all((d.mean, d.low, d.high, d.verdict) == (0, 0, 0, "unclear") for d in found)


def test_a_class_that_only_one_model_finds():
    """The second model finds class b, too: AP50 of b is 0 and 1, so that AP50 rises by a third."""
    data = scenes(12, np.random.default_rng(0))
    exact = [
        {"image_id": r.image_id, "category_id": int(k) + 1, "bbox": [*box[:2], *(box[2:] - box[:2])], "score": 0.9}
        for r in data.records
        for box, k in zip(r.boxes_G4, r.labels_G, strict=True)
    ]
    less = [row for row in exact if row["category_id"] != 2]
    found = {(d.metric, d.label): d for d in differences(data, less, exact, resamples=100)}
    assert found["AP50", "b"].mean == pytest.approx(1)
    assert found["AP50", "a"].mean == pytest.approx(0)
    assert found["AP50", ""].mean == pytest.approx(1 / 3)
    assert found["AP50", ""].verdict == "higher"
    objects = found_objects(data, less, exact)
    number = sum(int((record.labels_G == 1).sum()) for record in data.records)
    total = sum(len(record.labels_G) for record in data.records)
    assert (objects.both, objects.neither, len(objects.only_first)) == (total - number, 0, 0)
    assert len(objects.only_second) == number
    assert all(data.records[image].labels_G[g] == 1 for image, g in objects.only_second)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("runs/a/best.ckpt", "runs/b/best.ckpt"), ["a", "b"]),
        (("runs/a/best.ckpt", "m.onnx"), ["best.ckpt", "m.onnx"]),
        (("x/m.onnx", "x/m.onnx"), None),
    ],
)
def test_names(paths, names):
    found = _names([Path(path) for path in paths])
    assert found == names if names else [name[:2] for name in found] == ["1:", "2:"]


def test_one_model_is_refused(squares):
    with pytest.raises(ConfigError, match="expected two models or more, found 1"):
        compare(["a.json"], data=squares[1])


def test_the_command(trained_run, squares, tmp_path, capsys):
    """A checkpoint and a file with its own results: no difference in AP, and only the checkpoint has a speed."""
    model, results = trained_run / "best.ckpt", tmp_path / "results.json"
    files = ["--json", tmp_path / "c.json", "--report", tmp_path / "c.html"]
    for words in (
        ["evaluate", model, "--data", squares[1], "--results", results],
        ["compare", results, model, "--data", squares[1], "--resamples", 100, "--timed-images", 2, *files],
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    document = json.loads((tmp_path / "c.json").read_text())
    first, second = document["models"]
    assert (first["name"], second["name"]) == ("results.json", "best.ckpt")
    assert first["milliseconds_per_image"] is None
    assert second["milliseconds_per_image"] > 0
    assert second["differences"][0]["difference"] == pytest.approx(0, abs=1e-6)
    assert second["objects"]["only_first"] == second["objects"]["only_second"] == []
    assert document["sentences"][0] in said
    page = assert_self_contained((tmp_path / "c.html").read_text())
    assert "best.ckpt compared with results.json" in page.text


def share_of_differences(pairs, change):
    """Return the share of pairs of results whose AP is called different, and the mean difference of AP."""
    different, gaps = 0, []
    for seed in range(pairs):
        rng = np.random.default_rng(seed)
        data = scenes(60, rng)
        rows = detections(data, rng)
        first, second = jittered(rows, rng), change(jittered(rows, rng), rng)
        ap = differences(data, first, second, resamples=300, classes=False)[0]
        different += ap.verdict != "unclear"
        gaps.append(ap.mean)
    return different / pairs, float(np.mean(gaps))


@pytest.mark.slow
def test_how_often_a_difference_is_called_one():
    """100 pairs without a true difference: at most 5 %. 100 pairs of about 2 points of AP: at least 80 %.

    With 200 pairs of each kind, both limits hold, too.
    """
    without, _ = share_of_differences(100, lambda rows, rng: rows)
    with_one, gap = share_of_differences(100, lambda rows, rng: without_some(rows, rng, 0.035))
    assert without <= 0.05
    assert with_one >= 0.8
    assert -0.025 < gap < -0.015
