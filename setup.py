"""Builds the C kernels; everything else stands in pyproject.toml.

The extension is optional: without a C compiler the package installs all the same and runs its torch code. It is no
Python module: `retinanet.ops.native_library` loads it with ctypes, so it needs no Python headers either.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/retinanet/ops/native")

# No -march: the sources choose the instruction set at run time. No -ffast-math: NaN and infinity must survive. Traps
# and errno of floating-point operations are nobody's concern here, and would keep the compiler from vectorising.
FLAGS = [
    "-std=c11",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-pthread",
]

setup(
    ext_modules=[
        Extension(
            "retinanet.ops._native",
            sources=sorted(path.as_posix() for path in SOURCES.glob("*.c")),
            depends=sorted(path.as_posix() for path in SOURCES.glob("*.h")),
            extra_compile_args=[] if sys.platform == "win32" else FLAGS,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            libraries=[] if sys.platform == "win32" else ["m"],
            optional=True,
        )
    ]
)
