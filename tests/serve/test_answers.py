"""Answers of the API: detections, the drawn image, several files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from tests.serve.fakes import Fake, detections, expected, png
from tests.serve.made import rounded

JPEG = {"content-type": "image/jpeg"}


def test_several_files_are_answered_in_order(client: TestClient, fake: Fake):
    files = [("file", (f"{red}.png", png(red), "image/png")) for red in (200, 24, 96, 160)]
    answer = client.post("/v1/detect", files=files)
    assert answer.status_code == 200
    assert [p["name"] for p in answer.json()["images"]] == ["200.png", "24.png", "96.png", "160.png"]
    assert detections(answer.json()) == [rounded(expected(red)) for red in (200, 24, 96, 160)]
    assert sum(fake.batches) == 5  # and the first look at an empty image


def test_threshold_classes_and_most_detections(client: TestClient):
    def found(query: str = "", **fields: str | list[str]) -> list[str]:
        answer = client.post(f"/v1/detect{query}", files={"file": png(40)}, data=fields)
        assert answer.status_code == 200, answer.text
        return [d["class"] for d in answer.json()["images"][0]["detections"]]

    assert found("?threshold=0.5") == ["cell", "platelet"]
    assert found("?threshold=0.59") == ["cell", "platelet"]
    assert found("?threshold=0.95") == []
    assert found("?max_detections=1") == ["cell"]
    assert found("?classes=platelet&classes=cell") == ["cell", "platelet"]
    assert found("?classes=cell,platelet") == ["cell", "platelet"]
    assert found("?classes=white, cell") == ["white, cell"]  # a name with a comma
    assert found("?classes=platelet&max_detections=1") == ["platelet"]
    assert found(threshold="0.5", classes=["platelet", "white, cell"]) == ["platelet"]
    assert found("?threshold=0.1", threshold="0.7") == ["cell"]


def test_the_drawn_image(client: TestClient):
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
    assert (two.status_code, "one image, found 2" in two.json()["detail"]) == (422, True)
    assert client.post("/v1/detect", content=png(1), headers={"accept": "text/html,*/*;q=0.8"}).json()


def test_the_model_and_the_limits(client: TestClient):
    told = client.get("/v1/model").json()
    assert told["name"] == "fake.onnx"
    assert told["classes"] == ["cell", "platelet", "white, cell"]
    assert told["limits"] == {"upload_bytes": 500_000, "pixels": 100_000, "images": 8, "max_detections": 1000}
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
