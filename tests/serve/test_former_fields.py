"""Test that clients written for old field names still work, and that new clients need no old field name."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from retinanet.config import ServeConfig
from retinanet.serve.app import create_app
from tests.serve.fakes import Fake, expected, png
from tests.serve.rounding import rounded

MODEL_FIELDS = {
    *("name", "classes", "image_size", "max_size", "tile", "score_threshold", "nms_threshold", "max_detections"),
    *("precision", "trained_with", "version", "limits"),
}
LEVEL_FIELDS = {"level", "stride", "position", "scores", "best", "covering"}
PROPOSAL_FIELDS = {"box", "score", "class_id", "class", "anchor", "fate", "why", "detection", "iou"}


def result(name: str, red: int) -> dict[str, Any]:
    """Return the result of `png(red)` without its times, as clients read it."""
    return {"name": name, "width": 64, "height": 48, "detections": rounded(expected(red))}


def without_times(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for one in results:
        assert set(one["milliseconds"]) == {"before", "network", "total"}
    return [{name: value for name, value in one.items() if name != "milliseconds"} for one in results]


def test_a_client_of_the_old_fields(client: TestClient):
    """Send every option and read every field of the API before the first field was renamed."""
    files = [("file", ("a.png", png(40))), ("file", ("b.png", png(80)))]
    answer = client.post("/v1/detect", files=files, data={"threshold": "0.1", "max_detections": "20"}).json()
    assert without_times(answer["pictures"]) == [result("a.png", 40), result("b.png", 80)]
    query = "?threshold=0.5&classes=cell&classes=platelet&max_detections=1&format=json"
    answer = client.post(f"/v1/detect{query}", content=png(40), headers={"content-type": "image/*"}).json()
    assert answer["pictures"][0]["detections"] == rounded(expected(40))[:1]
    for headers, query, image_format in (({"accept": "image/png"}, "", "PNG"), ({}, "?format=jpeg", "JPEG")):
        drawn = client.post(f"/v1/detect{query}", content=png(40), headers=headers)
        assert Image.open(io.BytesIO(drawn.content)).format == image_format
    explanation = client.post("/v1/explain?x=20&y=30", files={"file": png(9)}, data={"threshold": "0.1"}).json()
    names = ("x", "y", "width", "height", "threshold")
    assert {name: explanation[name] for name in names} == dict(zip(names, (20, 30, 64, 48, 0.1), strict=True))
    assert isinstance(explanation["summary"], str)
    assert isinstance(explanation["detections"], list)
    assert all(set(level) >= LEVEL_FIELDS and set(level["best"]) >= PROPOSAL_FIELDS for level in explanation["levels"])
    model = client.get("/v1/model").json()
    assert set(model) >= MODEL_FIELDS
    assert model["limits"] == {**model["limits"], "upload_bytes": 500_000, "pixels": 100_000, "pictures": 8}
    assert client.post("/v1/detect", content=b"no").json().keys() == {"detail"}
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert client.get(path).status_code == 200
    assert "retinanet_places_taken" in client.get("/metrics").text


def test_a_client_of_the_current_fields(client: TestClient):
    """Read every answer without its deprecated fields, as found in the OpenAPI schema."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    deprecated = {
        schema: {name for name, field in description.get("properties", {}).items() if field.get("deprecated")}
        for schema, description in schemas.items()
    }
    assert {schema: names for schema, names in deprecated.items() if names} == {
        "DetectResponse": {"pictures"},
        "Limits": {"pictures"},
    }
    for schema in ("DetectResponse", "Limits"):
        assert "`images`" in schemas[schema]["properties"]["pictures"]["description"]
    answer = client.post("/v1/detect?threshold=0.1", files=[("file", ("ä.png", png(red))) for red in (40, 80)]).json()
    current = {name: value for name, value in answer.items() if name not in deprecated["DetectResponse"]}
    assert without_times(current.pop("images")) == [result("ä.png", 40), result("ä.png", 80)]
    assert current == {}
    limits = client.get("/v1/model").json()["limits"]
    current = {name: value for name, value in limits.items() if name not in deprecated["Limits"]}
    assert current == {"upload_bytes": 500_000, "pixels": 100_000, "images": 8, "max_detections": 1000}


def test_both_field_names_have_the_same_content(client: TestClient):
    answer = client.post("/v1/detect?threshold=0.1", files=[("file", png(red)) for red in (40, 80)])
    assert list(answer.json()) == ["images", "pictures"]
    assert answer.json()["images"] == answer.json()["pictures"]
    # The answer is put together from text, so it must be what an encoder would have written.
    assert answer.text == json.dumps(answer.json(), ensure_ascii=False)


def test_old_fields_with_a_key(tmp_path):
    (tmp_path / "keys").write_text("a-key\n")
    with TestClient(create_app(Fake, ServeConfig(api_key_file=tmp_path / "keys"))) as client:
        answer = client.post("/v1/detect", content=png(40), headers={"Authorization": "Bearer a-key"})
    assert answer.json()["pictures"][0]["detections"] == rounded(expected(40))[:3]
