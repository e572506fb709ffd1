"""Tests of dataset records and errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

from retinanet import data
from retinanet.data import DataError

Write = Callable[..., Path]


CAT = ("cat", (1, 2, 30, 40))


def test_errors_and_data_can_be_pickled(write_voc: Write) -> None:
    found = data.load(write_voc({"a": [CAT]}))
    assert pickle.loads(pickle.dumps(found)).records[0].path == found.records[0].path  # noqa: S301
    fault = data.Fault(file=Path("x"), where="line 1", what="wrong", advice="Correct it")
    error = pickle.loads(pickle.dumps(DataError("bad", [fault])))  # noqa: S301
    assert str(error) == "bad\n  x, line 1: wrong. Correct it."
