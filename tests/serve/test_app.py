"""Test the API: request bodies, explanations, the web page, options."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from starlette.testclient import TestClient

from retinanet.config import ServeConfig
from retinanet.errors import ConfigError
from retinanet.serve.app import PAGE
from tests.serve.fakes import expected, png
from tests.serve.rounding import rounded


def test_raw_bytes_with_any_content_type(client: TestClient):
    for kind in ("image/png", "application/octet-stream", "application/x-www-form-urlencoded"):
        answer = client.post("/v1/detect", content=png(40), headers={"content-type": kind})
        assert answer.status_code == 200
        (image,) = answer.json()["images"]
        assert (image["width"], image["height"]) == (64, 48)
        assert image["detections"] == rounded(expected(40))
        assert set(image["milliseconds"]) == {"before", "network", "total"}


def test_invalid_forms(client: TestClient):
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/detect", content=b"nonsense", headers=boundary).status_code == 400
    assert client.post("/v1/detect", content=b"", headers={"content-type": "multipart/form-data"}).status_code == 400
    only_text = client.post(
        "/v1/detect", content=b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--', headers=boundary
    )
    assert (only_text.status_code, only_text.json()["detail"]) == (
        422,
        "expected an image file in the form, found none: send it as a part with a filename",
    )
    many = client.post("/v1/detect", files=[("file", png(1))] * 9)
    assert many.status_code == 413
    assert "expected at most 8 images" in many.json()["detail"]


def test_the_error_names_the_one_invalid_file_of_several(client: TestClient):
    answer = client.post("/v1/detect", files=[("file", ("a.png", png(1))), ("file", ("../../b.jpg", b"no"))])
    assert answer.status_code == 415
    assert answer.json()["detail"].startswith("b.jpg: not a readable image")


def test_explain(client: TestClient):
    answer = client.post("/v1/explain?x=30&y=20&threshold=0.03", files={"file": png(9)})
    assert answer.status_code == 200
    explanation = answer.json()
    assert [level["level"] for level in explanation["levels"]] == ["P3", "P4", "P5", "P6", "P7"]
    assert all(len(level["scores"]) == 3 for level in explanation["levels"])
    assert (explanation["width"], explanation["height"], explanation["threshold"]) == (64, 48, 0.03)
    form = client.post("/v1/explain", files={"file": png(9)}, data={"x": "30", "y": "20", "threshold": "0.03"})
    assert form.json() == explanation
    assert client.post("/v1/explain?x=3&y=2", content=b"no").status_code == 415
    outside = client.post("/v1/explain?x=65&y=2", content=png(9))
    assert (outside.status_code, outside.json()["detail"]) == (
        422,
        "x, y: expected a place in the image of 64 x 48 pixels, found 65, 2",
    )
    for wrong in ("x=inf&y=1", "y=1", "x=-1&y=1"):
        assert client.post(f"/v1/explain?{wrong}", content=png(9)).status_code == 422


def test_the_page_loads_nothing_from_other_servers():
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text), path.name
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", text), path.name
            for name in re.findall(r'(?:src|href)="([^"#]+)"', text):
                assert name in {"./", "openapi.json"} or (PAGE / name).is_file(), name


@pytest.mark.slow
def test_serving_an_export_imports_no_torch():
    code = (
        "import sys, retinanet.serve.server, retinanet.predict.loading, retinanet.predict.runtime_detector\n"
        "from retinanet.checkpoint import ModelInfo\n"
        "print([m for m in ('torch', 'lightning', 'timm') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 70000}, "port must be between 0 and 65535, found 70000"),
        ({"max_queue": 0}, "max_queue must be above 0"),
        ({"max_pixels": 10**9}, "max_pixels must be between 1 and 178000000"),
        ({"max_wait_ms": -1.0}, "max_wait_ms"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ServeConfig(**options)
