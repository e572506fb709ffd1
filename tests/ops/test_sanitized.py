"""The tests of the kernels, run again with AddressSanitizer and UBSan."""

import os
import subprocess
import sys

import pytest

from tests.ops import sanitized

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _require_sanitizers():
    lacking = sanitized.missing_tool()
    if lacking:
        pytest.skip(f"a sanitized build needs {lacking}")


def test_the_sanitizers_report_nothing():
    completed = sanitized.run()
    assert completed.returncode == 0, completed.stdout[-4000:] + completed.stderr[-4000:]
    assert "passed" in completed.stdout


def test_a_read_past_the_end_is_reported(tmp_path):
    """The sanitizers work in this build: a length that is too large by 1 ends the process with a report."""
    library = sanitized.build(tmp_path)
    code = (
        "import ctypes, sys\n"
        f"native = ctypes.CDLL({str(library)!r})\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.malloc.restype = ctypes.c_void_p\n"
        "values, out = libc.malloc(400), ctypes.c_double()\n"
        "native.rn_sum(ctypes.c_void_p(values), ctypes.c_int64(101), 1, ctypes.byref(out))\n"
    )
    environment = {**os.environ, "LD_PRELOAD": str(sanitized.preloaded()[0]), "ASAN_OPTIONS": "detect_leaks=0"}
    completed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode != 0
    assert "heap-buffer-overflow" in completed.stderr
