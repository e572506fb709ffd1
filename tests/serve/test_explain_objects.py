"""Test the cause for which an object is missed: equal to that of `check`, for planted errors and a trained network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from retinanet.analysis.causes import ADVICE, CAUSES
from retinanet.analysis.error_causes import error_causes
from retinanet.analysis.model_outputs import dense_outputs, load_for_analysis
from retinanet.config import TileConfig
from retinanet.data import load
from retinanet.images import Frame
from retinanet.predict.dense import DenseOutputs, LevelOutputs
from retinanet.predict.torch_detector import Detector
from retinanet.serve.app import create_app
from retinanet.serve.explain_objects import explain_objects
from retinanet.serve.marked_objects import MarkedObjects
from tests.analysis.planted_errors import SIDE, Planted, plant, shifted
from tests.serve.fakes import CLASSES, Fake, png

FAR = np.array([SIDE, SIDE, SIDE + 1, SIDE + 1], float)


def dense_of(planted: Planted) -> DenseOutputs:
    """Return the dense outputs of a planted error, with anchors whose IoU with the objects is the planted one."""
    errors = planted.errors()
    flat, iou_AG = errors.trace.flat, errors.anchors.iou_AG
    anchors_A4 = np.tile(FAR, (len(iou_AG), 1))
    for g, box_4 in enumerate(planted.boxes_G4):
        iou = float(iou_AG[-1 - g, g])
        anchors_A4[-1 - g] = shifted(box_4, (1 - iou) / (1 + iou))
    levels = []
    for number, start, end in zip((3, 4), flat.starts, flat.starts[1:], strict=False):
        parts = (flat.scores_AK, flat.boxes_A4, anchors_A4.astype(np.float32))
        scores, boxes, anchors = (part[start:end][None, :, None] for part in parts)
        levels.append(LevelOutputs(number, 2**number, scores, boxes, anchors))
    return DenseOutputs(frame=Frame(SIDE, SIDE, SIDE, SIDE), levels=tuple(levels))


class PlantedDetector(Fake):
    """A detector with the classes and the assigned anchors of a planted error."""

    def __init__(self, object_A: np.ndarray | None) -> None:
        super().__init__()
        self.info = dataclasses.replace(self.info, classes=("a", "b", "c"))
        self.object_A = object_A

    def assigned_objects(self, dense: object, boxes_G4: object, labels_G: object) -> np.ndarray | None:
        return self.object_A


@pytest.mark.parametrize("cause", CAUSES)
def test_planted_errors_have_the_cause_that_check_finds(cause: str) -> None:
    """20 images each. The first object is the missed one, unless only a detection is false."""
    for seed in range(20):
        planted, _ = plant(cause, np.random.default_rng(seed))
        errors = planted.errors()
        missed = {miss.object: miss for miss in errors.missed()}
        is_by_iou = cause != "anchors taken"  # the planted assignment to a distant object follows from no IoU
        for object_A in (errors.anchors.object_A, *([None] if is_by_iou else [])):
            answer = explain_objects(
                dense_of(planted),
                MarkedObjects(planted.boxes_G4, planted.labels_G),
                detector=PlantedDetector(object_A),
                threshold=planted.threshold,
                config=planted.config,
            )
            for g, explained in enumerate(answer["objects"]):
                if g not in missed:
                    assert (explained["cause"], explained["advice"]) == ("detected", None), seed
                    assert explained["iou"] >= 0.5
                    continue
                assert explained["cause"] == missed[g].cause, seed
                assert explained["detection"] == missed[g].detection
                if planted.anchor_iou > 0.1:  # planted anchors of other objects have an IoU of 0.1
                    assert explained["preferred_score"] == pytest.approx(missed[g].preferred_score, abs=1e-6)
                if (
                    planted.anchor_iou > 0.1 and cause != "suppressed"
                ):  # there, anchors of the neighbour overlap the object, too
                    assert explained["anchor_iou"] == pytest.approx(missed[g].anchor_iou, abs=1e-5)
                assert explained["advice"] == ADVICE[explained["cause"]]
                assert explained["summary"].startswith(f"Missed, {explained['cause']}: ")
            assert len(answer["detections"]) == len(errors.shown)


def test_the_sentence_of_a_suppressed_object() -> None:
    """The neighbour's detection has an IoU of 0.6 with the object."""
    planted, _ = plant("suppressed", np.random.default_rng(0))
    answer = explain_objects(
        dense_of(planted),
        MarkedObjects(planted.boxes_G4, planted.labels_G),
        detector=PlantedDetector(None),
        threshold=0.5,
        config=planted.config,
    )
    missed, *others = answer["objects"]
    score, number = missed["best"]["score"], missed["detection"] + 1
    assert missed["summary"] == (
        "Missed, suppressed: NMS dropped a box that fits the object, because another box overlaps it and has a higher "
        f"score. A box that fits has the score {score:.3f}, detection {number} has IoU 0.60 with the object."
    )
    assert [other["cause"] for other in others] == ["detected", "detected"]


def test_a_neighbour_that_is_marked_does_not_count_as_the_object() -> None:
    """Without its neighbour, the object counts as found by the neighbour's detection."""
    planted, _ = plant("suppressed", np.random.default_rng(0))
    alone = explain_objects(
        dense_of(planted),
        MarkedObjects(planted.boxes_G4[:1], planted.labels_G[:1]),
        detector=PlantedDetector(None),
        threshold=0.5,
        config=planted.config,
    )
    assert [one["cause"] for one in alone["objects"]] == ["detected"]


@pytest.mark.parametrize("threshold", [0.02, 0.3])
def test_a_trained_network_has_the_causes_of_check(
    trained_run: Path, squares: tuple[Path, Path], threshold: float
) -> None:
    """Every object of every image, by the API: cause, advice and involved detection are those of `check`."""
    trained = load_for_analysis(trained_run / "best.ckpt", device="cpu")
    data = load(squares[1], classes=trained.classes)
    missed = {(m.image, m.object): m for m in error_causes(trained, data, threshold=threshold).missed}
    detector = Detector(model=trained.model, info=trained, device="cpu")
    count = 0
    with TestClient(create_app(lambda: detector)) as client:
        for index, record in enumerate(data.records):
            if not len(record.labels_G):
                continue
            boxes = [",".join(map(str, box)) for box in record.boxes_G4.tolist()]
            query = {"box": boxes, "class": [data.classes[k] for k in record.labels_G], "threshold": threshold}
            answer = client.post("/v1/explain", params=query, content=record.path.read_bytes())
            assert answer.status_code == 200, answer.text
            for g, explained in enumerate(answer.json()["objects"]):
                miss = missed.get((index, g))
                assert explained["cause"] == ("detected" if miss is None else miss.cause)
                assert miss is None or explained["detection"] == miss.detection
                assert miss is None or explained["level"] == f"P{miss.level}"
                count += 1
    assert count == sum(len(record.labels_G) for record in data.records)
    assert missed


@pytest.mark.parametrize("assigner", ["iou", "atss", pytest.param("task_aligned", marks=pytest.mark.slow)])
def test_a_checkpoint_assigns_anchors_as_training_does(
    trained_run: Path, squares: tuple[Path, Path], assigner: str
) -> None:
    trained = load_for_analysis(trained_run / "best.ckpt", device="cpu")
    trained = dataclasses.replace(trained, train_config={**trained.train_config, "assigner": assigner})
    data = load(squares[1], classes=trained.classes)
    detector = Detector(model=trained.model, info=trained, device="cpu")
    for batch in dense_outputs(trained, data, batch_size=1):
        record = data.records[batch.batch.indices[0]]
        object_A = detector.assigned_objects(detector.dense(record.path), record.boxes_G4, record.labels_G)
        targets = batch.targets
        assert object_A.tolist() == targets.matched_NA[0].masked_fill(~targets.positive_NA[0], -1).tolist()


def test_an_exported_model_notes_that_it_lacks_the_assigner(client: TestClient, fake: Fake) -> None:
    url = "/v1/explain?box=1,1,30,30&class=cell"
    assert client.post(url, content=png(9)).json()["note"] is None
    fake.info = dataclasses.replace(fake.info, train_config={"assigner": "atss"})
    assert client.post(url, content=png(9)).json()["note"].startswith("The model was trained with the assigner atss")


def test_objects_in_the_query_and_in_a_form(client: TestClient) -> None:
    query = {"box": ["1,1,30,30", "2,2,60.5,40"], "class": ["cell", "white, cell"], "threshold": "0.03"}
    answer = client.post("/v1/explain", params=query, content=png(9))
    assert answer.status_code == 200, answer.text
    objects = answer.json()["objects"]
    assert [(one["box"], one["class_id"], one["class"]) for one in objects] == [
        ([1, 1, 30, 30], 0, "cell"),
        ([2, 2, 60.5, 40], 2, "white, cell"),
    ]
    assert (answer.json()["width"], answer.json()["height"], answer.json()["threshold"]) == (64, 48, 0.03)
    assert client.post("/v1/explain", files={"file": png(9)}, data=query).json() == answer.json()
    place = client.post("/v1/explain?x=1&y=1&threshold=0.03&max_detections=2", content=png(9)).json()
    assert len(place["detections"]) == 2
    limited = client.post("/v1/explain", params={**query, "max_detections": 2}, content=png(9)).json()
    assert len(limited["detections"]) == 2


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "expected x and y, or box and class, or all of them, found none of these: give a place of the image, or"),
        ("x=1", "expected x and y, or box and class, or all of them, found x:"),
        ("x=1&box=1,1,5,5&class=cell", "expected x and y, or box and class, or all of them, found x, box, class:"),
        ("box=1,1,5,5", "expected x and y, or box and class, or all of them, found box:"),
        ("box=1,1,5,5&box=1,1,5,5&class=cell", "expected a class for each box, found 2 of box and 1 of class: repeat"),
        ("box=1,1,5&class=cell", "box: expected four numbers x1,y1,x2,y2, found '1,1,5': give the left, top, right"),
        ("box=1,1,5,nan&class=cell", "box: expected four numbers x1,y1,x2,y2, found '1,1,5,nan'"),
        (
            "box=5,1,5,9&class=cell",
            "box: expected x1 < x2 and y1 < y2, found '5,1,5,9': give the top left corner first",
        ),
        ("box=-1,1,5,9&class=cell", "box: expected a box inside the image of 64 x 48 pixels, found -1,1,5,9: give"),
        ("box=1,1,65,9&class=cell", "box: expected a box inside the image of 64 x 48 pixels, found 1,1,65,9: give"),
        (
            "box=1,1,5,9&class=Cel",
            "class: expected a class of the model (cell, platelet, white, cell), found 'Cel'. Did",
        ),
    ],
)
def test_invalid_objects(client: TestClient, query: str, message: str) -> None:
    answer = client.post(f"/v1/explain?{query}", content=png(9))
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_limits(client: TestClient, fake: Fake) -> None:
    query = {"box": ["1,1,5,5"] * 21, "class": [CLASSES[0]] * 21}
    assert client.post("/v1/explain", params=query, content=png(9)).status_code == 422
    fake.info = dataclasses.replace(fake.info, tiling=TileConfig(tile=64))
    url = "/v1/explain?box=1,1,5,5&class=cell"
    assert client.post(url, content=png(9)).status_code == 200
    refused = client.post(url, content=png(9, 100, 48))
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "box: expected an image of one tile, at most 64 x 64 pixels, found 100 x 48: cut out the part of the image "
        "around the object",
    )
