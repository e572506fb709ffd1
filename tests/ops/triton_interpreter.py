"""Run tests of Triton's forms without a GPU, in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_triton_tests(file: Path, *, ignored_warning: str) -> None:
    """Run the tests of a file that are named after Triton. TRITON_INTERPRET must be set before Triton is imported.

    So the tests run in a new process.

    Args:
        file: tests of the forms of an operation.
        ignored_warning: warning of NumPy in the interpreter, as pytest's option -W takes it.
    """
    pytest.importorskip("triton", reason="Triton is not installed")
    if os.environ.get("RETINANET_NATIVE_LIBRARY"):
        pytest.skip("this test runs no C code, so a sanitized run does not need it")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "triton", str(file)]
    command += ["-W", ignored_warning]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout[-4000:] + completed.stderr[-4000:]
    assert "passed" in completed.stdout
