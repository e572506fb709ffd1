"""Test keys, security headers and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retinanet.config import ServeConfig
from retinanet.errors import ConfigError
from retinanet.serve.app import create_app
from tests.serve.fakes import Fake, png

JPEG = {"content-type": "image/jpeg"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?threshold=1.5", "threshold: input should be less than or equal to 1, or 'tuned', found '1.5'"),
        ("?threshold=-0.1", "threshold: input should be greater than or equal to 0"),
        ("?threshold=nan", "threshold"),
        (
            "?threshold=high",
            "threshold: input should be a valid number, unable to parse string as a number, or 'tuned', found 'high'",
        ),
        ("?max_detections=0", "max_detections: input should be greater than or equal to 1"),
        ("?max_detections=1001", "less than or equal to 1000"),
        (
            "?classes=cel",
            "classes: expected a class of the model (cell, platelet, white, cell), found 'cel'. Did you mean 'cell'?",
        ),
        ("?format=gif", "format: input should be 'json', 'jpeg' or 'png', found 'gif'"),
        ("?thresh=0.5", "thresh: unknown parameter, found '0.5'"),
    ],
)
def test_an_invalid_parameter_is_422_with_the_reason(client: TestClient, query: str, message: str):
    for answer in (
        client.post(f"/v1/detect{query}", content=png(1), headers=JPEG),
        client.post("/v1/detect", files={"file": png(1)}, data=dict([query[1:].split("=")])),
    ):
        assert answer.status_code == 422, answer.text
        assert message in answer.json()["detail"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_keys(tmp_path: Path, fake: Fake, encoding: str):
    file = tmp_path / "keys"
    file.write_bytes("first-key\r\n# keys\n\n  second key \n".encode(encoding))  # Windows adds byte order marks
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
    with pytest.raises(ConfigError, match="contains no key"):
        create_app(lambda: fake, ServeConfig(api_key_file=file))
    with pytest.raises(ConfigError, match="cannot be read"):
        create_app(lambda: fake, ServeConfig(api_key_file=tmp_path / "absent"))


def test_security_headers_without_cross_origin_access(client: TestClient):
    for path in ("/", "/app.js", "/v1/model", "/openapi.json", "/absent"):
        answer = client.get(path, headers={"origin": "http://elsewhere.example"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.get("/v1/model").headers["cache-control"] == "no-store"
    preflight = client.options(
        "/v1/detect", headers={"origin": "http://a.example", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 405
    assert client.get("/../app.py").status_code == client.get("/%2e%2e/app.py").status_code == 404
    assert client.get("/docs").url.path == "/docs.html"


def test_health_probes_and_wrong_methods(client: TestClient):
    """Load balancers send HEAD, and some add a trailing slash. A wrong method is 405 and names the right one."""
    for path in ("/healthz", "/readyz", "/v1/model", "/metrics", "/healthz/", "/"):
        assert client.head(path).status_code == client.get(path).status_code == 200, path
    assert client.post("/v1/detect/", content=png(1), headers=JPEG).status_code == 200
    for method, path, allowed in (
        ("GET", "/v1/detect", "POST"),
        ("HEAD", "/v1/detect", "POST"),
        ("DELETE", "/v1/detect", "POST"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
