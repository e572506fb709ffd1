"""Test the metrics of a server."""

from __future__ import annotations

from starlette.testclient import TestClient

from tests.serve.fakes import png


def test_metrics_count_requests_detections_and_slots(client: TestClient):
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
