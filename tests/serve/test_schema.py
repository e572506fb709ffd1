"""Schemathesis: whatever the description allows, and whatever it does not, no answer is a 5xx or undescribed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from starlette.testclient import TestClient

from retinanet.config import ServeConfig
from retinanet.serve.app import create_app
from tests.serve.fakes import Fake, png
from tests.shared import examples

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("schemathesis.specs.openapi.checks")

UNLIKELY = schemathesis.specs.openapi.checks.positive_data_acceptance
"""That what the description allows is accepted: of bytes it cannot say that they must be an image."""
REFUSED = schemathesis.specs.openapi.checks.negative_data_rejection
"""That what it forbids is refused: Schemathesis does not count 413 as that."""

app = create_app(Fake, ServeConfig(max_queue=1000))


@pytest.fixture(scope="module")
def client():
    with TestClient(app) as made:
        yield made


def ask(client: TestClient, strategy: Any) -> set[int]:
    """Send what the strategy makes, check each answer, and return the statuses."""
    statuses: set[int] = set()

    @settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=strategy)
    def one(case: Any) -> None:
        response = case.call(session=client)
        assert response.status_code < 500, response.text
        statuses.add(response.status_code)
        case.validate_response(
            response, excluded_checks=[UNLIKELY, *([REFUSED] if response.status_code == 413 else [])]
        )

    one()
    return statuses


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_answer_is_a_server_error(client: TestClient, mode: str):
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    tried: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        try:
            strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))
        except TypeError:  # nothing about it can be wrong
            continue
        name = f"{operation.method.upper()} {operation.path}"
        try:
            tried[name] = ask(client, strategy)
        except Unsatisfiable:  # likewise
            continue
    assert {"POST /v1/detect", "POST /v1/explain"} <= set(tried)
    assert 415 in tried["POST /v1/detect"] or mode == "negative"


@pytest.mark.slow
def test_real_images_with_the_described_parameters(client: TestClient):
    """What Schemathesis makes is hardly ever an image: the described answer of one that is."""
    answers = {name: one for name, one in app.openapi()["components"]["schemas"].items() if name.endswith("Response")}
    assert {"DetectResponse", "ExplainResponse", "ModelResponse", "ErrorResponse"} <= set(answers)
    for path in ("/v1/detect", "/v1/explain?x=3&y=4"):
        answer = client.post(path, content=png(30), headers={"content-type": "image/png"})
        operation = schemathesis.openapi.from_asgi("/openapi.json", app)[path.partition("?")[0]]["POST"]
        operation.validate_response(answer)
