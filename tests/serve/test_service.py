"""Images on their way through the network of a server."""

from __future__ import annotations

from starlette.testclient import TestClient

from tests.serve.fakes import FAILS, Fake, detections, expected, png
from tests.serve.made import rounded


def test_a_image_on_which_the_network_fails_hurts_nobody_else(client: TestClient, fake: Fake):
    failed = client.post("/v1/detect", content=png(FAILS))
    assert failed.status_code == 500
    assert failed.json() == {"detail": "an error in the server; its log says more"}
    mixed = client.post("/v1/detect", files=[("file", png(red)) for red in (50, FAILS, 60)])
    assert mixed.status_code == 500
    assert "secret" not in failed.text + mixed.text
    after = client.post("/v1/detect", content=png(50))
    assert detections(after.json()) == [rounded(expected(50))]
    assert client.app.state.service.places.taken == 0  # type: ignore[attr-defined]
