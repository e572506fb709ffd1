"""Build the C kernels with AddressSanitizer and UBSan, and run the tests of this folder with that build.

    python -m tests.ops.sanitized [pytest arguments]

A report of a sanitizer ends the process that runs the tests, so the run fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "src" / "retinanet" / "ops" / "native"


def missing_tool() -> str | None:
    """Return the name of the tool that this machine lacks for a sanitized build, or None if it lacks no tool."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return "gcc"
    if not all(path.is_absolute() for path in preloaded()):
        return "libasan or libstdc++ of gcc"
    return None


def preloaded() -> list[Path]:
    """Return the paths of gcc's libasan and libstdc++. gcc returns the bare file name of a library that it lacks.

    libstdc++ is preloaded because libasan needs its exception functions: without them, the first exception within
    torch ends the process.
    """
    return [
        Path(
            subprocess.run(
                ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
            ).stdout.strip()
        )
        for name in ("libasan.so", "libstdc++.so.6")
    ]


def build(folder: Path) -> Path:
    """Compile the kernels with both sanitizers and return the path of the library."""
    out = folder / "libretinanet_sanitized.so"
    flags = ["-std=c11", "-O1", "-g", "-fPIC", "-shared", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fvisibility=hidden", "-pthread"]
    sources = sorted(str(path) for path in CSRC.glob("*.c"))
    subprocess.run(["gcc", *flags, *sources, "-o", str(out), "-lm"], check=True)
    return out


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with the sanitized library, on the tests of this folder or with other arguments."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "RETINANET_NATIVE_LIBRARY": str(build(Path(folder))),
            "LD_PRELOAD": " ".join(map(str, preloaded())),
            "ASAN_OPTIONS": "detect_leaks=0",  # CPython and torch do not free all memory at exit
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "OMP_NUM_THREADS": "2",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu"]
        # A fork may copy AddressSanitizer's allocator while one of torch's threads holds its lock. The comparisons on
        # 10,000 cases repeat the shorter ones, and take minutes here. Triton kernels are no C code.
        command += ["-k", "not forked and not sanitized and not 10_000_cases and not triton"]
        return subprocess.run(
            [*command, *(arguments or (str(HERE),))],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


if __name__ == "__main__":
    lacking = missing_tool()
    if lacking:
        sys.exit(f"a sanitized build needs {lacking}: install it")
    completed = run(*sys.argv[1:])
    print(completed.stdout + completed.stderr)
    sys.exit(completed.returncode)
