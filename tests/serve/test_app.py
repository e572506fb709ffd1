"""The API: what it answers, what it refuses and with which words; nothing leaks from one request to another."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from retinanet.config import ServeConfig
from retinanet.errors import ConfigError
from retinanet.serve.app import PAGE, create_app
from tests.serve.fakes import FAILS, Fake, detections, expected, png

JPEG = {"content-type": "image/jpeg"}


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def client(fake: Fake) -> Iterator[TestClient]:
    config = ServeConfig(max_queue=8, max_upload_mb=0.5, max_pixels=100_000)
    with TestClient(create_app(lambda: fake, config, name="fake.onnx"), raise_server_exceptions=False) as made:
        yield made


def rounded(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**d, "box": [round(v, 2) for v in d["box"]]} for d in found]


def test_raw_bytes_whatever_their_content_type(client: TestClient):
    for kind in ("image/png", "application/octet-stream", "application/x-www-form-urlencoded"):
        answer = client.post("/v1/detect", content=png(40), headers={"content-type": kind})
        assert answer.status_code == 200
        (picture,) = answer.json()["pictures"]
        assert (picture["width"], picture["height"]) == (64, 48)
        assert picture["detections"] == rounded(expected(40))
        assert set(picture["milliseconds"]) == {"before", "network", "total"}


def test_several_files_are_answered_in_order(client: TestClient, fake: Fake):
    files = [("file", (f"{red}.png", png(red), "image/png")) for red in (200, 24, 96, 160)]
    answer = client.post("/v1/detect", files=files)
    assert answer.status_code == 200
    assert [p["name"] for p in answer.json()["pictures"]] == ["200.png", "24.png", "96.png", "160.png"]
    assert detections(answer.json()) == [rounded(expected(red)) for red in (200, 24, 96, 160)]
    assert sum(fake.batches) == 5  # and the first look at an empty picture


def test_threshold_classes_and_most_detections(client: TestClient):
    def found(query: str = "", **fields: str | list[str]) -> list[str]:
        answer = client.post(f"/v1/detect{query}", files={"file": png(40)}, data=fields)
        assert answer.status_code == 200, answer.text
        return [d["class"] for d in answer.json()["pictures"][0]["detections"]]

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


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?threshold=1.5", "threshold: input should be less than or equal to 1, found '1.5'"),
        ("?threshold=-0.1", "threshold: input should be greater than or equal to 0"),
        ("?threshold=nan", "threshold"),
        ("?threshold=high", "threshold: input should be a valid number"),
        ("?max_detections=0", "max_detections: input should be greater than or equal to 1"),
        ("?max_detections=1001", "less than or equal to 1000"),
        ("?classes=cel", "classes: the model has no 'cel', it has cell, platelet, white, cell. Did you mean 'cell'?"),
        ("?format=gif", "format: input should be 'json', 'jpeg' or 'png', found 'gif'"),
        ("?thresh=0.5", "thresh: extra inputs are not permitted"),
    ],
)
def test_a_wrong_parameter_is_422_and_says_why(client: TestClient, query: str, said: str):
    for answer in (
        client.post(f"/v1/detect{query}", content=png(1), headers=JPEG),
        client.post("/v1/detect", files={"file": png(1)}, data=dict([query[1:].split("=")])),
    ):
        assert answer.status_code == 422, answer.text
        assert said in answer.json()["detail"]


def test_forms_that_are_none(client: TestClient):
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/detect", content=b"nonsense", headers=boundary).status_code == 400
    assert client.post("/v1/detect", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    only_text = client.post(
        "/v1/detect", content=b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--', headers=boundary
    )
    assert (only_text.status_code, only_text.json()["detail"]) == (
        422,
        "the form has no file: send the picture as a part with a filename",
    )
    many = client.post("/v1/detect", files=[("file", png(1))] * 9)
    assert many.status_code == 413
    assert "limit is 8" in many.json()["detail"]


def test_the_drawn_picture(client: TestClient):
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
    assert (two.status_code, "one picture, found 2" in two.json()["detail"]) == (422, True)
    assert client.post("/v1/detect", content=png(1), headers={"accept": "text/html,*/*;q=0.8"}).json()


def test_a_picture_on_which_the_network_fails_hurts_nobody_else(client: TestClient, fake: Fake):
    failed = client.post("/v1/detect", content=png(FAILS))
    assert failed.status_code == 500
    assert failed.json() == {"detail": "an error in the server; its log says more"}
    mixed = client.post("/v1/detect", files=[("file", png(red)) for red in (50, FAILS, 60)])
    assert mixed.status_code == 500
    assert "secret" not in failed.text + mixed.text
    after = client.post("/v1/detect", content=png(50))
    assert detections(after.json()) == [rounded(expected(50))]
    assert client.app.state.service.places.taken == 0  # type: ignore[attr-defined]


def test_one_bad_file_of_several_is_named(client: TestClient):
    answer = client.post("/v1/detect", files=[("file", ("a.png", png(1))), ("file", ("../../b.jpg", b"no"))])
    assert answer.status_code == 415
    assert answer.json()["detail"].startswith("b.jpg: not a picture that can be read")


def test_explain(client: TestClient):
    answer = client.post("/v1/explain?x=30&y=20&threshold=0.03", files={"file": png(9)})
    assert answer.status_code == 200
    told = answer.json()
    assert [one["level"] for one in told["levels"]] == ["P3", "P4", "P5", "P6", "P7"]
    assert all(len(one["scores"]) == 3 for one in told["levels"])
    assert (told["width"], told["height"], told["threshold"]) == (64, 48, 0.03)
    assert client.post("/v1/explain", files={"file": png(9)}, data={"x": "30", "y": "20"}).status_code == 422
    assert client.post("/v1/explain?x=3&y=2", content=b"no").status_code == 415
    outside = client.post("/v1/explain?x=65&y=2", content=png(9))
    assert (outside.status_code, outside.json()["detail"]) == (
        422,
        "x, y must lie in the picture of 64 x 48 pixels, found 65, 2",
    )
    for wrong in ("x=inf&y=1", "y=1", "x=-1&y=1"):
        assert client.post(f"/v1/explain?{wrong}", content=png(9)).status_code == 422


def test_the_model_and_the_limits(client: TestClient):
    told = client.get("/v1/model").json()
    assert told["name"] == "fake.onnx"
    assert told["classes"] == ["cell", "platelet", "white, cell"]
    assert told["limits"] == {"upload_bytes": 500_000, "pixels": 100_000, "pictures": 8, "max_detections": 1000}
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_metrics(client: TestClient):
    client.post("/v1/detect", files=[("file", png(1)), ("file", png(2))])
    client.post("/v1/detect", content=b"no")
    client.get("/no/such/page")
    text = client.get("/metrics").text
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert numbers['retinanet_requests_total{path="/v1/detect",status="200"}'] == "1.0"
    assert numbers['retinanet_requests_total{path="/v1/detect",status="415"}'] == "1.0"
    assert numbers['retinanet_requests_total{path="page",status="404"}'] == "1.0"
    assert numbers['retinanet_detections_total{class_name="white, cell"}'] == "2.0"
    assert numbers["retinanet_places"] == "8.0"
    assert numbers["retinanet_places_taken"] == "0.0"
    assert float(numbers["retinanet_batch_size_sum"]) == 2
    assert "process_resident_memory_bytes" in numbers


def test_keys(tmp_path: Path, fake: Fake):
    file = tmp_path / "keys"
    file.write_text("# keys\nfirst-key\n\n  second key \n")
    app = create_app(lambda: fake, ServeConfig(api_key_file=file))
    with TestClient(app) as client:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic first-key"},
            {"authorization": "Bearer # keys"},
        ):
            for answer in (
                client.get("/v1/model", headers=headers),
                client.post("/v1/detect", content=png(1), headers=headers),
            ):
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            assert client.get("/metrics", headers=headers).status_code == 401
        for key in ("first-key", "second key"):
            assert client.get("/v1/model", headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert client.get("/healthz").status_code == client.get("/").status_code == 200
        assert client.app.openapi()["paths"]["/v1/detect"]["post"]["security"]  # type: ignore[attr-defined]
    file.write_text("# none\n")
    with pytest.raises(ConfigError, match="has no key"):
        create_app(lambda: fake, ServeConfig(api_key_file=file))
    with pytest.raises(ConfigError, match="cannot be read"):
        create_app(lambda: fake, ServeConfig(api_key_file=tmp_path / "absent"))


def test_headers_and_no_cross_origin_answers(client: TestClient):
    for path in ("/", "/app.js", "/v1/model", "/openapi.json", "/absent"):
        answer = client.get(path, headers={"origin": "http://elsewhere.example"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.get("/v1/model").headers["cache-control"] == "no-store"
    asked = client.options(
        "/v1/detect", headers={"origin": "http://a.example", "access-control-request-method": "POST"}
    )
    assert asked.status_code == 405
    assert client.get("/../app.py").status_code == client.get("/%2e%2e/app.py").status_code == 404
    assert client.get("/docs").url.path == "/docs.html"


def test_the_page_names_no_address_outside_the_server():
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text), path.name
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", text), path.name
            for name in re.findall(r'(?:src|href)="([^"#]+)"', text):
                assert name in {"./", "openapi.json"} or (PAGE / name).is_file(), name


def test_serving_an_export_imports_no_torch():
    code = (
        "import sys, retinanet.serve.server, retinanet.predict.loading, retinanet.predict.runtime_detector\n"
        "from retinanet.checkpoint import ModelInfo\n"
        "print([m for m in ('torch', 'lightning', 'timm') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 70000}, "port must be between 0 and 65535, found 70000"),
        ({"max_queue": 0}, "max_queue must be above 0"),
        ({"max_pixels": 10**9}, "max_pixels must be between 1 and 178000000"),
        ({"max_wait_ms": -1.0}, "max_wait_ms"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        ServeConfig(**options)
