"""Test the API with requests that Schemathesis derives from the OpenAPI schema, valid and invalid ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from starlette.testclient import TestClient

from retinanet.config import ServeConfig
from retinanet.serve.app import create_app
from tests.serve.fakes import Fake, png
from tests.shared import num_examples

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("schemathesis.specs.openapi.checks")

ACCEPTANCE = schemathesis.specs.openapi.checks.positive_data_acceptance
"""Check that requests allowed by the schema succeed. The schema cannot require that bytes are an image."""
REJECTION = schemathesis.specs.openapi.checks.negative_data_rejection
"""Check that requests forbidden by the schema are refused. Schemathesis does not accept status 413 as a refusal."""

app = create_app(Fake, ServeConfig(max_queue=1000))


@pytest.fixture(scope="module")
def client():
    with TestClient(app) as client:
        yield client


def send_all(client: TestClient, strategy: Any) -> set[int]:
    """Send the requests of the strategy, validate each answer, and return the statuses."""
    statuses: set[int] = set()

    @settings(max_examples=num_examples(40), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=strategy)
    def send(case: Any) -> None:
        response = case.call(session=client)
        assert response.status_code < 500, response.text
        statuses.add(response.status_code)
        case.validate_response(
            response, excluded_checks=[ACCEPTANCE, *([REJECTION] if response.status_code == 413 else [])]
        )

    send()
    return statuses


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_every_answer_follows_the_schema_and_none_is_a_server_error(client: TestClient, mode: str):
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    statuses: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        try:
            strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))
        except TypeError:  # the operation has no parameters, so no invalid request exists
            continue
        name = f"{operation.method.upper()} {operation.path}"
        try:
            statuses[name] = send_all(client, strategy)
        except Unsatisfiable:  # no invalid request exists
            continue
    assert {"POST /v1/detect", "POST /v1/explain"} <= set(statuses)
    assert 415 in statuses["POST /v1/detect"] or mode == "negative"


@pytest.mark.slow
def test_answers_to_real_images_follow_the_schema(client: TestClient):
    """Schemathesis almost never generates a valid image, so successful answers are validated here."""
    schemas = app.openapi()["components"]["schemas"]
    assert {"DetectResponse", "ExplainResponse", "ModelResponse", "ErrorResponse"} <= set(schemas)
    for path in ("/v1/detect", "/v1/explain?x=3&y=4"):
        answer = client.post(path, content=png(30), headers={"content-type": "image/png"})
        operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path.partition("?")[0]]["POST"]
        operation.validate_response(answer)
