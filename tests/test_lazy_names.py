"""Tests of names that are imported on first use."""

import subprocess
import sys

import pytest

from retinanet.lazy_names import lazy_names


def test_a_name_is_imported_and_an_unknown_name_is_refused():
    get = lazy_names("package", {"sqrt": "math"})
    assert get("sqrt")(9) == 3
    with pytest.raises(AttributeError, match="module 'package' has no attribute 'cbrt'"):
        get("cbrt")


def test_a_module_is_imported_on_first_use():
    code = (
        "import sys\nfrom retinanet.lazy_names import lazy_names\nget = lazy_names('p', {'Fraction': 'fractions'})\n"
        "before = 'fractions' in sys.modules\nget('Fraction')\nprint(before, 'fractions' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]
