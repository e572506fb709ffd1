"""Test the answers of the API: detections, drawn images, several files, old and new field names."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from retinanet.checkpoint.tuned_thresholds import TunedThresholds
from retinanet.config import TileConfig
from tests.serve.fakes import Fake, detections, expected, png
from tests.serve.rounding import rounded


def test_several_files_are_answered_in_order(client: TestClient, fake: Fake):
    files = [("file", (f"{red}.png", png(red), "image/png")) for red in (200, 24, 96, 160)]
    answer = client.post("/v1/detect", files=files)
    assert answer.status_code == 200
    assert [image["name"] for image in answer.json()["images"]] == ["200.png", "24.png", "96.png", "160.png"]
    assert detections(answer.json()) == [rounded(expected(red)) for red in (200, 24, 96, 160)]
    assert sum(fake.batches) == 5  # four files, and the black image when the service starts


def test_threshold_classes_and_max_detections(client: TestClient):
    def detected_classes(query: str = "", **fields: str | list[str]) -> list[str]:
        answer = client.post(f"/v1/detect{query}", files={"file": png(40)}, data=fields)
        assert answer.status_code == 200, answer.text
        return [d["class"] for d in answer.json()["images"][0]["detections"]]

    assert detected_classes("?threshold=0.5") == ["cell", "platelet"]
    assert detected_classes("?threshold=0.59") == ["cell", "platelet"]
    assert detected_classes("?threshold=0.95") == []
    assert detected_classes("?max_detections=1") == ["cell"]
    assert detected_classes("?classes=platelet&classes=cell") == ["cell", "platelet"]
    assert detected_classes("?classes=cell,platelet") == ["cell", "platelet"]
    assert detected_classes("?classes=white, cell") == ["white, cell"]  # a class name that contains a comma
    assert detected_classes("?classes=platelet&max_detections=1") == ["platelet"]
    assert detected_classes(threshold="0.5", classes=["platelet", "white, cell"]) == ["platelet"]
    assert detected_classes("?threshold=0.1", threshold="0.7") == ["cell"]


def test_each_request_chooses_the_kind_of_nms(client: TestClient, fake: Fake):
    """One image runs when the service starts. Requests with two kinds of NMS never share a batch."""
    for query in ("?agnostic_nms=true", "", "?agnostic_nms=false"):
        assert client.post(f"/v1/detect{query}", content=png(40)).status_code == 200
    assert fake.agnostic == [False, True, False, False]
    files = [("file", png(red)) for red in (24, 96)]
    assert client.post("/v1/detect", files=files, data={"agnostic_nms": "true"}).status_code == 200
    assert set(fake.agnostic[4:]) == {True}
    assert client.get("/v1/model").json()["agnostic_nms"] is False
    assert client.post("/v1/detect?agnostic_nms=perhaps", content=png(40)).status_code == 422
    explained = [
        client.post(f"/v1/explain?x=1&y=1&threshold=0&agnostic_nms={value}", content=png(40)).json()
        for value in ("true", "false")
    ]
    assert len(explained[0]["detections"]) < len(explained[1]["detections"])


def test_tiles_use_the_kind_of_nms_of_the_request(client: TestClient, fake: Fake):
    fake.info = dataclasses.replace(fake.info, tiling=TileConfig(tile=64))
    assert client.post("/v1/detect?agnostic_nms=true", content=png(40, 100, 100)).status_code == 200
    assert set(fake.agnostic[1:]) == {True}


def test_the_nms_of_an_exported_model_is_fixed(client: TestClient, fake: Fake):
    fake.fixed_agnostic_nms = False
    for path in ("/v1/detect?", "/v1/explain?x=1&y=1&"):
        assert client.post(f"{path}agnostic_nms=false", content=png(40)).status_code == 200
        refused = client.post(f"{path}agnostic_nms=true", content=png(40))
        assert refused.status_code == 422
        assert refused.json()["detail"].endswith("export the checkpoint again with --agnostic-nms")


def test_drawn_images(client: TestClient):
    for headers, query, kind in (
        ({"accept": "image/jpeg"}, "", "JPEG"),
        ({"accept": "image/png, */*"}, "", "PNG"),
        ({"accept": "application/json"}, "?format=png", "PNG"),
    ):
        answer = client.post(f"/v1/detect{query}", content=png(200, 300, 200), headers=headers)
        assert answer.status_code == 200
        image = Image.open(io.BytesIO(answer.content))
        assert (image.format, image.size) == (kind, (300, 200))
        assert answer.headers["content-type"] == f"image/{kind.lower()}"
    drawn, plain = (
        np.asarray(
            Image.open(
                io.BytesIO(client.post(f"/v1/detect?format=png&threshold={t}", content=png(200, 300, 200)).content)
            )
        )
        for t in (0.5, 1)
    )
    assert (plain == (200, 0, 0)).all()
    assert (drawn != plain).any()
    two = client.post("/v1/detect?format=jpeg", files=[("file", png(1))] * 2)
    assert (two.status_code, "expected one image per request, found 2" in two.json()["detail"]) == (422, True)
    assert client.post("/v1/detect", content=png(1), headers={"accept": "text/html,*/*;q=0.8"}).json()


def test_model_limits_and_health(client: TestClient):
    answer = client.get("/v1/model").json()
    assert answer["name"] == "fake.onnx"
    assert answer["classes"] == ["cell", "platelet", "white, cell"]
    limits = {"upload_bytes": 500_000, "pixels": 100_000, "images": 8, "max_detections": 1000}
    assert {name: answer["limits"][name] for name in limits} == limits
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_tuned_thresholds(client: TestClient, fake: Fake):
    """The scores are 0.9 (cell), 0.6 (platelet) and 0.3 (white, cell)."""
    url = "/v1/detect?threshold=tuned"
    answer = client.post(url, content=png(200))
    assert answer.status_code == 422
    assert "the model has no tuned thresholds, found 'tuned'" in answer.json()["detail"]
    assert client.get("/v1/model").json()["tuned"] is None
    tuned = TunedThresholds(
        thresholds=(0.95, 0.5, 0.2), aim="recall=0.9", per_class=True, confidence=0.95, images=9, sentence="A promise."
    )
    fake.info = dataclasses.replace(fake.info, tuned=tuned)
    (image,) = client.post(url, content=png(200)).json()["images"]
    assert [found["class"] for found in image["detections"]] == ["platelet", "white, cell"]
    assert client.get("/v1/model").json()["tuned"] == {
        "aim": "recall=0.9",
        "thresholds": [0.95, 0.5, 0.2],
        "sentence": "A promise.",
    }
    for wrong in ("tune", "1.5", "-0.1"):
        answer = client.post(f"/v1/detect?threshold={wrong}", content=png(200))
        assert answer.status_code == 422
        assert f"found '{wrong}'" in answer.json()["detail"]
