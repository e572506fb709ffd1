"""The kernels' tests once more, under AddressSanitizer and UBSan."""

import os
import subprocess
import sys

import pytest

from tests.ops import sanitized

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def _tools():
    lacking = sanitized.missing()
    if lacking:
        pytest.skip(f"needs gcc with its sanitizers: {lacking}")


def test_the_kernels_are_clean_under_the_sanitizers():
    done = sanitized.run()
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "passed" in done.stdout


def test_a_read_past_the_end_is_seen(tmp_path):
    """The build and the way it is loaded do find faults: a length one too large ends the process with a report."""
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
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
