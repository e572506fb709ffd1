"""Builds the C kernels under AddressSanitizer and UBSan, and runs the tests of this folder against that build.

    python -m tests.ops.sanitized [pytest arguments]

A report of either sanitizer ends the process that runs the tests, so it fails.
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


def missing() -> str | None:
    """Return what this machine lacks for it, in words, or None."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return "no gcc"
    if not all(path.is_absolute() for path in preloaded()):
        return "gcc has no libasan or no libstdc++"
    return None


def preloaded() -> list[Path]:
    """Return where gcc's libasan and libstdc++ lie; gcc gives back the bare name of what it does not have.

    The second one, too: libasan must find there how to throw, or the first exception within torch ends the process.
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
    """Compile the kernels with both sanitizers and return the library."""
    out = folder / "libretinanet_sanitized.so"
    flags = ["-std=c11", "-O1", "-g", "-fPIC", "-shared", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fvisibility=hidden", "-pthread"]
    sources = sorted(str(path) for path in CSRC.glob("*.c"))
    subprocess.run(["gcc", *flags, *sources, "-o", str(out), "-lm"], check=True)
    return out


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on this folder's tests, or with other arguments, against the sanitized library."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "RETINANET_NATIVE_LIBRARY": str(build(Path(folder))),
            "LD_PRELOAD": " ".join(map(str, preloaded())),
            "ASAN_OPTIONS": "detect_leaks=0",  # CPython and torch leak by design
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "OMP_NUM_THREADS": "2",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu"]
        # A fork beside torch's threads may copy AddressSanitizer's allocator while one of them holds its lock.
        command += ["-k", "not forked and not sanitized"]
        return subprocess.run(
            [*command, *(arguments or (str(HERE),))],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


if __name__ == "__main__":
    lacking = missing()
    if lacking:
        sys.exit(lacking)
    done = run(*sys.argv[1:])
    print(done.stdout + done.stderr)
    sys.exit(done.returncode)
