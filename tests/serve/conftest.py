"""Provide a client of the app, in this process, with a fake detector."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from retinanet.config import ServeConfig
from retinanet.serve.app import create_app
from tests.serve.fakes import Fake


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def client(fake: Fake) -> Iterator[TestClient]:
    config = ServeConfig(max_queue=8, max_upload_mb=0.5, max_pixels=100_000)
    with TestClient(create_app(lambda: fake, config, name="fake.onnx"), raise_server_exceptions=False) as client:
        yield client
