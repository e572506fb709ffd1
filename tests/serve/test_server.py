"""Test the server in a subprocess over real sockets: many clients, a full server, disconnects, SIGTERM, memory."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from retinanet.config import ServeConfig
from retinanet.serve import uploads
from retinanet.serve.app import create_app
from tests.serve.fakes import Fake, Server, detections, expected, png
from tests.serve.rounding import rounded


def post(server: Server, data: bytes, path: str = "/v1/detect") -> tuple[int, Any, dict[str, str]]:
    request = urllib.request.Request(server.url + path, data, {"content-type": "image/png"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), dict(error.headers)


def metrics(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(server.url + "/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition was still false after 10 seconds")


def expected_answer(red: int, width: int = 64, height: int = 48) -> list[dict[str, Any]]:
    return rounded(expected(red, width, height))


@pytest.mark.slow
def test_each_of_many_clients_gets_the_answer_for_its_own_image():
    images = [(20 + i % 200, *((64, 48), (48, 64), (100, 50))[i % 3]) for i in range(300)]
    with Server("max_queue=64", model="2.onnx") as server:
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda image: post(server, png(*image)), images))
        numbers = metrics(server)
    for image, (status, answer, _) in zip(images, answers, strict=True):
        assert status == 200, answer
        assert detections(answer) == [expected_answer(*image)]
    assert numbers["retinanet_batch_size_sum"] == 300
    assert numbers["retinanet_batch_size_count"] < 250  # some images shared a batch
    assert numbers['retinanet_batch_size_bucket{le="8.0"}'] == numbers["retinanet_batch_size_count"]
    assert numbers["retinanet_places_taken"] == 0


@pytest.mark.slow
def test_a_full_server_answers_503_with_the_time_to_retry():
    with Server("max_queue=2, max_batch=1", model="300.onnx") as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: (i, post(server, png(30 + i))), range(8)))
        after = post(server, png(99))
    accepted = [i for i, (status, _, _) in answers if status == 200]
    assert 2 <= len(accepted) < 8
    for i, (status, answer, headers) in answers:
        if i in accepted:
            assert detections(answer) == [expected_answer(30 + i)]
        else:
            assert status == 503
            assert answer["detail"].startswith("all 2 slots (--max-queue) are in use: try again in ")
            assert int(headers["retry-after"]) >= 1
    assert after[0] == 200


@pytest.mark.slow
def test_a_client_that_disconnects_frees_its_slot():
    with Server("max_queue=2, max_batch=1", model="1500.onnx") as server:
        body = png(50)
        head = f"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        for connection in clients:
            connection.sendall(head + body)
        wait_for(lambda: metrics(server)["retinanet_places_taken"] == 2)
        assert post(server, png(1))[0] == 503
        for connection in clients:
            connection.close()
        wait_for(lambda: metrics(server)["retinanet_places_taken"] == 0)
        # The network was running on one image when its client disconnected. The other image was waiting and is dropped.
        assert detections(post(server, png(60))[1]) == [expected_answer(60)]
        numbers = metrics(server)
    assert numbers["retinanet_clients_gone_total"] == 2
    assert numbers["retinanet_batch_size_sum"] == 2


@pytest.mark.slow
def test_sigterm_finishes_requests_in_progress():
    with Server("max_batch=1", model="400.onnx") as server, ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(post, server, png(40 + i)) for i in range(5)]
        wait_for(lambda: metrics(server)["retinanet_places_taken"] == 5)
        assert server.stop() == 0
        for i, request in enumerate(waiting):
            status, answer, _ = request.result()
            assert (status, detections(answer)) == (200, [expected_answer(40 + i)])
    assert server.output[-1] == "stopped\n"


@pytest.mark.slow
def test_a_client_still_sending_a_too_large_body_gets_the_answer():
    with Server("max_upload_mb=0.1") as server:
        for headers, body in (
            ({}, bytes(30_000_000)),
            ({"Transfer-Encoding": "chunked"}, iter([bytes(1_000_000)] * 30)),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.request("POST", "/v1/detect", body, headers, encode_chunked=bool(headers))
            answer = connection.getresponse()
            assert answer.status == 413
            assert json.load(answer) == {"detail": "the request is larger than the limit of 0.1 MB (--max-upload-mb)"}
            connection.close()


def test_a_body_that_does_not_arrive_in_time_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "READ_SECONDS", 0.1)
    app = create_app(Fake, ServeConfig())
    sent: list[Any] = []

    async def run() -> None:
        async def receive() -> Any:
            if not sent:
                sent.append(None)
                return {"type": "http.request", "body": b"begin", "more_body": True}
            await asyncio.sleep(30)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/detect", "raw_path": b"/v1/detect", "root_path": ""}
        scope |= {"query_string": b"", "headers": [(b"content-type", b"image/png")], "http_version": "1.1"}
        scope |= {"scheme": "http", "server": ("x", 80), "client": ("y", 1), "asgi": {"version": "3.0"}}
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
            assert app.state.service.slots.used == 0

    asyncio.run(run())
    assert sent[1]["status"] == 408


@pytest.mark.slow
def test_worker_processes_share_the_port_and_the_metrics():
    with Server("workers=2", model="30.onnx") as server:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: post(server, png(20 + i)), range(60)))
        assert [detections(answer) for _, answer, _ in answers] == [[expected_answer(20 + i)] for i in range(60)]
        wait_for(lambda: metrics(server)['retinanet_requests_total{path="/v1/detect",status="200"}'] == 60)
        assert metrics(server)["retinanet_places"] == 128
        assert server.stop() == 0


@pytest.mark.slow
def test_memory_does_not_grow():
    def resident(server: Server) -> int:
        line = next(s for s in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if "VmRSS" in s)
        return int(line.split()[1]) * 1024

    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    with Server() as server, ThreadPoolExecutor(8) as pool:
        images = [png(20 + i, 320, 240) for i in range(20)]

        def send(count: int) -> None:
            for status, answer, _ in pool.map(lambda i: post(server, images[i % 20]), range(count)):
                assert status == 200, answer

        send(300)
        before = resident(server)
        send(1000)
        assert (
            resident(server) - before < 8_000_000
        )  # 8 kB per request; benchmarks/serve_load.py measures 10,000 requests
