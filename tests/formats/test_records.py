"""Tests of dataset records and errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from retinanet import data
from retinanet.data import DataError
from retinanet.formats.records import distinct_boxes, drawn_names

Write = Callable[..., Path]


CAT = ("cat", (1, 2, 30, 40))


def test_errors_and_data_can_be_pickled(write_voc: Write) -> None:
    found = data.load(write_voc({"a": [CAT]}))
    assert pickle.loads(pickle.dumps(found)).records[0].path == found.records[0].path  # noqa: S301
    fault = data.Fault(file=Path("x"), where="line 1", what="wrong", advice="Correct it")
    error = pickle.loads(pickle.dumps(DataError("bad", [fault])))  # noqa: S301
    assert str(error) == "bad\n  x, line 1: wrong. Correct it."


def test_a_region_of_every_class_is_drawn_once() -> None:
    """Two objects with one box are two boxes. A region of one class keeps the name of its class."""
    a, b, c = [0.0, 0, 9, 9], [5.0, 5, 8, 8], [1.0, 1, 2, 2]
    boxes, labels = np.array([a, a, b, c, b]), np.array([0, 1, 0, 1, 1])
    crowd = np.array([False, False, True, True, True])
    assert distinct_boxes(boxes, crowd).tolist() == [True, True, True, True, False]
    names = list(drawn_names(boxes, labels, crowd, ("cat", "dog")))
    assert names == [(0, "cat"), (1, "dog"), (2, "ignored"), (3, "dog (crowd)")]
    assert list(drawn_names(np.empty((0, 4)), labels[:0], crowd[:0], ())) == []
