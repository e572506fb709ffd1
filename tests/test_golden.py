"""Recorded numbers: what today's code computes must equal the files in tests/golden.

Written by `python -m tests.golden.record [NAME...]`, see there. Integers, names, texts and COCO's numbers are compared
exactly, other numbers with a tolerance for other processors and versions of torch.
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
"""Relative tolerance of each file's numbers; 1e-5 unless given."""
MAY_GROW = {"configs", "flags"}
"""Files whose dictionaries may gain entries: an option may be added, but not lost, renamed or given another default."""


@pytest.mark.parametrize("name", NUMBERS)
def test_equals_the_recorded_numbers(name: str) -> None:
    if name == "coco" and not REFERENCE.is_dir():
        pytest.skip(f"the reference results are not at {REFERENCE}")
    with one_thread():
        found = NUMBERS[name]()
    expected = read(name)
    if name in MAY_GROW:
        found = {key: {k: v for k, v in found[key].items() if k in expected[key]} for key in expected if key in found}
    differences = compare(found, expected, rtol=TOLERANCE.get(name, 1e-5))
    assert not differences, f"{len(differences)} differences:\n" + "\n".join(differences[:20])


def compare(found: Any, expected: Any, *, rtol: float, where: str = "") -> list[str]:
    """Return a line for each difference. A number may differ by `rtol` of its own size or of 1, whichever is larger."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = [f"{where}: missing {key}" for key in expected if key not in found]
        lines += [f"{where}: unexpected {key}" for key in found if key not in expected]
        pairs = [(f"{where}/{key}", found[key], expected[key]) for key in expected if key in found]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        lines = []
        pairs = [(f"{where}/{i}", *pair) for i, pair in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, float) and isinstance(found, float):
        same = math.isclose(found, expected, rel_tol=rtol, abs_tol=rtol)
        return [] if same else [f"{where}: {found!r}, recorded {expected!r}"]
    else:
        same = type(found) is type(expected) and found == expected
        return [] if same else [f"{where}: {found!r}, recorded {expected!r}"]
    for place, *pair in pairs:
        lines += compare(*pair, rtol=rtol, where=place)
    return lines
