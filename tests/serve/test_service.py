"""Test how the server processes images with the network."""

from __future__ import annotations

from starlette.testclient import TestClient

from tests.serve.fakes import FAILS, Fake, detections, expected, png
from tests.serve.rounding import rounded


def test_an_image_on_which_the_network_fails_does_not_affect_other_requests(client: TestClient, fake: Fake):
    failed = client.post("/v1/detect", content=png(FAILS))
    assert failed.status_code == 500
    assert failed.json() == {"detail": "internal server error: see the log of the server for its cause"}
    mixed = client.post("/v1/detect", files=[("file", png(red)) for red in (50, FAILS, 60)])
    assert mixed.status_code == 500
    assert "secret" not in failed.text + mixed.text
    after = client.post("/v1/detect", content=png(50))
    assert detections(after.json()) == [rounded(expected(50))]
    assert client.app.state.service.slots.used == 0  # type: ignore[attr-defined]
