"""Recorded numbers: the current code must compute the numbers in the files of tests/golden.

`python -m tests.golden.record [NAME...]` writes the files. Integers, names, texts and the COCO numbers are compared
exactly. Other numbers are compared with a tolerance, because they depend on the processor and the version of torch.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.golden.record import NUMBERS, REFERENCE, one_thread, read

TOLERANCE = {
    "coco": 0.0,
    **dict.fromkeys(("trained", "fine_tuned", "resumed", "old_detections", "untrained"), 1e-4),
}
"""Relative tolerance of the numbers in a file; 1e-5 for other files."""
MAY_GROW = {"configs", "flags"}
"""Files whose dictionaries may get new entries. A new option is allowed; a removed option or a new default is not."""


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_equal_the_recorded_numbers(name: str) -> None:
    if name == "coco" and not REFERENCE.is_dir():
        pytest.skip(f"the reference results are not at {REFERENCE}")
    with one_thread():
        actual = NUMBERS[name]()
    expected = read(name)
    if name in MAY_GROW:
        actual = {
            key: {k: v for k, v in actual[key].items() if k in expected[key]} for key in expected if key in actual
        }
    differences = compare(actual, expected, rtol=TOLERANCE.get(name, 1e-5))
    assert not differences, f"{len(differences)} differences:\n" + "\n".join(differences[:20])


def compare(actual: Any, expected: Any, *, rtol: float, where: str = "") -> list[str]:
    """Return a line for each difference. Numbers may differ by `rtol`, relative to the larger of their size and 1."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        lines = [f"{where}: missing {key}" for key in expected if key not in actual]
        lines += [f"{where}: unexpected {key}" for key in actual if key not in expected]
        pairs = [(f"{where}/{key}", actual[key], expected[key]) for key in expected if key in actual]
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        lines = []
        pairs = [(f"{where}/{i}", *pair) for i, pair in enumerate(zip(actual, expected, strict=True))]
    elif isinstance(expected, float) and isinstance(actual, float):
        is_same = math.isclose(actual, expected, rel_tol=rtol, abs_tol=rtol)
        return [] if is_same else [f"{where}: expected the recorded {expected!r}, found {actual!r}"]
    else:
        is_same = type(actual) is type(expected) and actual == expected
        return [] if is_same else [f"{where}: expected the recorded {expected!r}, found {actual!r}"]
    for place, *pair in pairs:
        lines += compare(*pair, rtol=rtol, where=place)
    return lines
