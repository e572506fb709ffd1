"""Build of the C kernels. pyproject.toml holds all other settings of the package.

The extension is optional: without a C compiler, the package is installed without the extension and uses its torch code.
The extension is a plain library, which `retinanet.ops.native_library` loads with ctypes, so the build needs no Python
headers.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/retinanet/ops/native")

# -march is not set, because the sources choose the instruction set at run time. -ffast-math is not set, because it
# breaks NaN and infinity. No code reads errno or floating-point traps, and both would prevent vectorisation.
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
