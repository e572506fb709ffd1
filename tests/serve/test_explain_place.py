"""Test the object that a place of an image suggests, its cause and its numbers, in a hand-made scene."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from retinanet.checkpoint.model_info import ModelInfo
from retinanet.config import ServeConfig, TileConfig
from retinanet.predict.trace import FlatOutputs, Trace
from retinanet.serve.app import create_app
from retinanet.serve.explained_values import level_details
from retinanet.serve.proposals import centredness, propose_label, propose_object
from tests.serve.fakes import png
from tests.serve.scene import CELL, CONFUSED, FOUND, LOW, PLATELET, SUPPRESSED, WHITE, SceneDetector, scene

NOTHING = np.zeros((0, 4))


@pytest.fixture(scope="module")
def detector() -> SceneDetector:
    return SceneDetector()


@pytest.fixture(scope="module")
def client(detector: SceneDetector) -> Iterator[TestClient]:
    with TestClient(create_app(lambda: detector, ServeConfig())) as client:
        yield client


def ask(client: TestClient, **query: Any) -> dict[str, Any]:
    answer = client.post("/v1/explain", params={"threshold": 0.5, **query}, content=png(9, 640, 480))
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def text(box: tuple[float, ...]) -> str:
    return ",".join(map(str, box))


def test_a_click_on_a_missed_object_gives_the_reason(client: TestClient):
    answer = ask(client, x=330, y=330)
    found = answer["object"]
    assert (found["box"], found["class"], answer["proposed_from"]) == (list(LOW), "platelet", "prediction")
    assert (found["cause"], found["visible_from"], found["hidden_because"]) == ("below the threshold", 0.369, None)
    assert [(one["class"], one["score"]) for one in found["best"]["classes"]] == [
        ("platelet", pytest.approx(0.37)),
        ("cell", pytest.approx(0.35)),
        ("white, cell", pytest.approx(0.01)),
    ]
    assert found["remedy"] == {
        "option": "threshold",
        "value": 0.369,
        "detections": 4,  # with the cell at 0.9, the platelet at 0.8, and the white cell at 0.4
        "text": "With the threshold 0.369, the object is detected. The image then has 4 instead of 2 detections.",
    }
    assert found["command"] == "retinanet predict --threshold 0.369"
    assert found["anchor"]["iou"] == 1
    assert (found["anchor"]["role"], found["anchor"]["positives"]) == ("positive", 1)
    assert answer["levels"][0]["best"]["classes"][1]["class"] == "cell"


def test_the_threshold_is_the_highest_that_shows_the_object(client: TestClient):
    """float32(0.37) is 0.37000000477, and a detection exceeds the threshold: 0.37 itself is not certain."""
    for threshold, cause in ((0.369, "detected"), (0.371, "below the threshold")):
        (one,) = ask(client, box=text(LOW), **{"class": "platelet"}, threshold=threshold)["objects"]
        assert one["cause"] == cause


def test_a_place_in_a_detection_suggests_the_detection(client: TestClient):
    answer = ask(client, x=70, y=110)
    assert (answer["object"]["box"], answer["proposed_from"]) == (list(FOUND), "detection")
    assert (answer["object"]["cause"], answer["object"]["visible_from"], answer["near"]) == ("detected", 0.899, None)


def test_a_place_just_outside_of_a_detection(client: TestClient):
    """The suppressed box around the place overlaps the detection with 0.538, and so it belongs to the detection."""
    answer = ask(client, x=164, y=110)
    assert answer["near"] == {"detection": 0, "distance": 4.0}
    assert answer["summary"].startswith("This place is 4 pixels outside of detection 1, cell. ")
    assert ask(client, x=240, y=110)["summary"].startswith("No detection here.")


def test_a_neighbour_turns_a_found_object_into_a_suppressed_one(client: TestClient):
    """With nms_threshold 0.54, the box with the IoU 0.538 stays."""
    (alone,) = ask(client, box=text(SUPPRESSED), **{"class": "cell"})["objects"]
    assert (alone["cause"], alone["iou"]) == ("detected", pytest.approx(7 / 13))
    query = {"box": [text(SUPPRESSED), text(FOUND)], "class": ["cell", "cell"]}
    missed, other = ask(client, **query)["objects"]
    assert (missed["cause"], missed["detection"], other["cause"]) == ("suppressed", 0, "detected")
    assert missed["nms_iou"] == pytest.approx(7 / 13, abs=1e-6)
    assert (missed["visible_from"], missed["hidden_because"]) == (None, "NMS suppresses every box that fits the object")
    remedy = missed["remedy"]
    assert (remedy["option"], remedy["value"], remedy["detections"]) == ("nms_threshold", 0.54, 3)
    assert missed["command"] == "retinanet predict --nms-threshold 0.54"


def test_a_marked_object_is_not_suggested_again(client: TestClient):
    assert ask(client, x=330, y=330)["proposed_from"] == "prediction"
    assert ask(client, x=330, y=330, box=text(LOW), **{"class": "cell"})["proposed_from"] == "anchor"


def test_other_objects_at_a_place(client: TestClient):
    """The place lies in the detection, and in the middle of the suppressed box, whose IoU with it is 0.538."""
    answer = ask(client, x=140, y=110)
    assert answer["proposed_from"] == "detection"
    other = {"box": list(SUPPRESSED), "class_id": CELL, "class": "cell", "score": 0.8, "source": "prediction"}
    assert answer["others"] == [other]
    assert ask(client, x=330, y=330)["others"] == []
    marked = ask(client, x=140, y=110, box=text(SUPPRESSED), **{"class": "cell"})
    assert marked["others"] == []


def test_an_empty_class_is_proposed(client: TestClient):
    query = {"box": [text(LOW), text(CONFUSED), text(LOW)], "class": ["", "", "cell"]}
    first, second, third = ask(client, **query)["objects"]
    assert [one["class"] for one in (first, second, third)] == ["platelet", "platelet", "cell"]
    assert [one["is_class_proposed"] for one in (first, second, third)] == [True, True, False]


def test_a_wrong_class_names_the_winner(client: TestClient):
    """The white cell has 0.4 where a platelet is detected with 0.8; a threshold of 0.399 shows both."""
    (one,) = ask(client, box=text(CONFUSED), **{"class": "white, cell"})["objects"]
    assert (one["cause"], one["visible_from"]) == ("below the threshold", 0.399)
    assert [row["class"] for row in one["best"]["classes"][:2]] == ["platelet", "white, cell"]
    (one,) = ask(client, box=text(CONFUSED), **{"class": "cell"})["objects"]
    assert (one["cause"], one["detection"], one["command"]) == (
        "wrong class",
        1,
        "retinanet check MODEL DATA --hard -o DIR",
    )


def test_no_threshold_shows_a_box_that_does_not_fit(client: TestClient):
    (one,) = ask(client, box="200,200,260,260", **{"class": "cell"})["objects"]
    assert (one["best"], one["visible_from"], one["remedy"]) == (None, None, None)
    assert one["hidden_because"].startswith("no predicted box of its class")
    assert one["closest"]["iou"] < 0.5
    assert (one["cause"], one["anchor"]["role"]) == ("no anchor", "background")


def test_tuned_thresholds(detector: SceneDetector, client: TestClient, monkeypatch: pytest.MonkeyPatch):
    """The detections are those of each class above its own threshold, and the fate of a box follows from it."""
    assert client.post("/v1/explain?x=1&y=1&threshold=tuned", content=png(9)).status_code == 422
    info: ModelInfo = detector.info
    tuned = type("Tuned", (), {"thresholds": (0.3, 0.9, 0.3)})()
    monkeypatch.setattr(ModelInfo, "tuned", property(lambda self: tuned), raising=False)
    assert detector.info is info
    answer = ask(client, x=330, y=330, threshold="tuned")
    found = [(one["class"], round(one["score"], 2)) for one in answer["detections"]]
    assert found == [("cell", 0.9), ("white, cell", 0.4), ("cell", 0.35)]
    assert answer["threshold"] == 0.3
    best = answer["levels"][0]["best"]
    assert (best["class"], best["fate"]) == ("platelet", "below_threshold")
    assert best["why"] == "score 0.370 is not above the threshold 0.9"
    (platelet,) = ask(client, box=text(LOW), **{"class": "platelet"}, threshold="tuned")["objects"]
    assert platelet["cause"] == "below the threshold"


def test_an_image_of_several_tiles_has_no_suggested_object(client: TestClient, detector: SceneDetector):
    before = detector.info
    try:
        detector.info = dataclasses.replace(before, tiling=TileConfig(tile=64))
        answer = ask(client, x=330, y=330)
    finally:
        detector.info = before
    assert (answer["object"], answer["proposed_from"]) == (None, None)
    assert answer["levels"]


@pytest.mark.parametrize(
    ("place", "centre"), [((110, 110), 1.0), ((60, 110), 0.0), ((10, 110), 0.0), ((85, 110), (25 / 75) ** 0.5)]
)
def test_centredness(place: tuple[float, float], centre: float):
    assert centredness(np.array([FOUND]), *place) == pytest.approx([centre])


def test_an_anchor_is_proposed_where_no_box_is_predicted():
    dense = scene()
    flat = FlatOutputs.of(dense)
    found = Trace(flat, SceneDetector().postprocess_config).detections()[:0]
    proposed = propose_object(flat, found, dense, NOTHING, x=5, y=470)
    assert proposed.source == "anchor"
    x1, y1, x2, y2 = proposed.box
    assert 0 <= x1 < x2 <= 640
    assert 0 <= y1 < y2 <= 480


def test_the_class_of_a_box():
    flat = FlatOutputs.of(scene())
    iou_A = np.zeros(len(flat.boxes_A4))
    iou_A[3] = 0.8
    assert propose_label(flat, iou_A) == PLATELET
    iou_A[[0, 3]] = 0.3, 0.2  # none fits: the box with the highest IoU decides
    assert propose_label(flat, iou_A) == CELL
    assert WHITE == 2


def test_levels_in_plain_words():
    """The anchors of the first position of level 3 are 100 x 100, that of level 4 is 640 x 480."""
    assert level_details(scene()) == ["finest detail, about 100 px", "coarsest detail, about 554 px"]
