"""Run the scripts of reports and of the web page without a browser, in V8, to compare their numbers with Python's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from retinanet.report.html import script_text


class Scripts:
    """Scripts of `report/scripts`, loaded in their order into one scope, as in a report.

    Functions that use the document cannot run.
    """

    def __init__(self, names: Sequence[str]) -> None:
        racer = pytest.importorskip("py_mini_racer", reason="this test runs JavaScript: pip install mini-racer")
        self._engine = racer.MiniRacer()
        for name in ("parts", *names):
            self._engine.eval(script_text(name))

    def call(self, function: str, *arguments: Any) -> Any:
        """Return the result of a function of the scripts. Arguments and result are values that JSON can hold."""
        values = ", ".join(json.dumps(value, allow_nan=False) for value in arguments)
        return json.loads(self._engine.eval(f"JSON.stringify({function}({values}))"))
