"""Finds and loads the C library, and checks what is handed to it. Loaded with ctypes: it releases the GIL, and the
library depends on the ABI of neither Python nor torch.

Environment: RETINANET_NATIVE=0 switches the library off; RETINANET_ISA=avx512, avx2 or baseline asks for an instruction
set (never one that the processor lacks); RETINANET_NATIVE_LIBRARY names another file to load, for sanitized builds.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

log = logging.getLogger(__name__)

ABI: Final = 3
"""RN_ABI of native/common.h: a library built from other sources is refused."""
_PROCESS: Final = os.getpid()
"""Another one later on: forked since."""
ISAS: Final = ("baseline", "avx2", "avx512")
"""As rn_set_isa numbers them. The baseline is SSE2 on x86-64, NEON on arm64, else scalar."""

DTYPE_CODES: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Numbers of the logits' types in native/candidates.c and native/focal.c."""

# C types of the arguments.
POINTER: Final = ctypes.c_void_p
INT64: Final = ctypes.c_int64
INT: Final = ctypes.c_int
FLOAT: Final = ctypes.c_float
DOUBLE: Final = ctypes.c_double

_SIGNATURES: Final[dict[str, tuple[type[ctypes._SimpleCData], ...]]] = {  # type: ignore[type-arg]
    "rn_sum": (POINTER, INT64, INT, POINTER),
    "rn_match": (
        *(POINTER, INT64, POINTER, POINTER, POINTER, POINTER, INT64, FLOAT, FLOAT, INT, INT),
        *(POINTER, POINTER, POINTER, POINTER, POINTER),
    ),
    "rn_candidates": (POINTER, INT, POINTER, INT, INT64, FLOAT, INT64, INT, POINTER, POINTER, POINTER, POINTER),
    "rn_nms": (POINTER, POINTER, POINTER, INT64, DOUBLE, INT64, POINTER, POINTER),
    "rn_winograd_weights": (POINTER, INT64, INT64, POINTER),
    "rn_winograd": (
        *(POINTER, INT64, INT64, INT64, INT64, POINTER, POINTER, INT64, FLOAT, FLOAT, POINTER, INT64, INT, POINTER),
    ),
    "rn_focal": (
        *(POINTER, INT, INT64, INT64, INT64, POINTER, POINTER, POINTER, POINTER, POINTER),
        *(DOUBLE, DOUBLE, POINTER, POINTER, INT, POINTER),
    ),
}
"""Arguments of each exported function; all return an int, 0 when all went well."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the library, or None where there is none: said once in the log."""
    if os.environ.get("RETINANET_NATIVE") == "0":
        log.info("native kernels: switched off by RETINANET_NATIVE=0, the torch code serves")
        return None
    path = os.environ.get("RETINANET_NATIVE_LIBRARY") or _built()
    if path is None:
        log.warning("native kernels: not built (no C compiler at installation?), the slower torch code serves")
        return None
    try:
        found = ctypes.CDLL(path)
        version = int(found.rn_abi())
        if version != ABI:
            raise OSError(f"version {version}, needed is {ABI}: install retinanet again")
        for name, arguments in _SIGNATURES.items():
            function = getattr(found, name)
            function.argtypes, function.restype = arguments, INT
    except (OSError, AttributeError) as error:
        log.warning("native kernels: %s cannot be used (%s), the slower torch code serves", path, error)
        return None
    wanted = os.environ.get("RETINANET_ISA")
    if wanted:
        if wanted not in ISAS:
            raise ValueError(f"RETINANET_ISA must be one of {', '.join(ISAS)}, found {wanted!r}")
        found.rn_set_isa(ISAS.index(wanted))
    _share_threads(found)
    log.info("native kernels: %s, %s", path, ISAS[found.rn_get_isa()])
    return found


def _share_threads(found: ctypes.CDLL) -> None:
    """Let the library compute on the threads of torch's OpenMP; where that is not found it makes its own.

    A forked child has none of the parent's threads, and OpenMP would wait for them: there, it makes its own as well.
    """
    found.rn_set_team.argtypes, found.rn_set_team.restype = (POINTER,), INT
    if os.getpid() != _PROCESS or not hasattr(os, "RTLD_NOLOAD"):
        return
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*.so*")):
        try:
            team = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY).GOMP_parallel
        except (OSError, AttributeError):  # not the one that is loaded; an OpenMP without this function
            continue
        found.rn_set_team(ctypes.cast(team, POINTER))
        os.register_at_fork(after_in_child=lambda: found.rn_set_team(None))
        return


def _built() -> str | None:
    """Return the file that the package's build made. It is only found, never imported."""
    spec = importlib.util.find_spec("retinanet.ops._native")
    return spec.origin if spec is not None else None


def available() -> bool:
    """Whether the library is there."""
    return library() is not None


def instruction_set() -> str | None:
    """Return the instruction set in use, one of `ISAS`; None without the library."""
    native = library()
    return None if native is None else ISAS[native.rn_get_isa()]


def isas() -> tuple[str, ...]:
    """Return the instruction sets that this processor has, the plainest first; none without the library."""
    native = library()
    if native is None:
        return ()
    before = native.rn_get_isa()
    best = native.rn_set_isa(-1)
    native.rn_set_isa(before)
    return ISAS[: best + 1]


@contextmanager
def using_isa(name: str) -> Iterator[None]:
    """Run with an instruction set, for tests and comparisons. Holds for the whole process, not for this thread alone.

    Raises:
        ValueError: one that this processor lacks.
    """
    native = library()
    if native is None or name not in isas():
        raise ValueError(f"expected one of {isas()}, found {name!r}")
    before = native.rn_get_isa()
    native.rn_set_isa(ISAS.index(name))
    try:
        yield
    finally:
        native.rn_set_isa(before)


def address(tensor: Tensor, *, name: str, dtype: torch.dtype, shape: Sequence[int | None]) -> int:
    """Return where a tensor's values lie, after checking all that the C code takes for granted.

    Args:
        tensor: a dense, contiguous CPU tensor.
        name: for the error.
        dtype: exactly this one.
        shape: exactly this one; None: any size.

    Raises:
        TypeError: another device, layout or dtype.
        ValueError: another shape, or not contiguous.
    """
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype != dtype:
        raise TypeError(
            f"{name}: expected a dense CPU tensor of {dtype}, found {tensor.layout}, {tensor.device}, {tensor.dtype}"
        )
    if tensor.ndim != len(shape) or any(
        want is not None and want != size for want, size in zip(shape, tensor.shape, strict=True)
    ):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, found {tuple(tensor.shape)}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name}: expected a contiguous tensor, found strides {tensor.stride()}")
    return tensor.data_ptr()


def call(name: str, *arguments: float | int | None) -> None:
    """Call a function of the library, without the GIL.

    Raises:
        RuntimeError: there is no library.
        MemoryError: the function found no memory.
        ValueError: the function refused its arguments.
    """
    native = library()
    if native is None:
        raise RuntimeError("the native kernels are not there: ask available() first")
    code = getattr(native, name)(*arguments)
    if code == -1:
        raise MemoryError(f"{name}: no memory for its work space")
    if code != 0:
        raise ValueError(f"{name}: refused its arguments (code {code})")


def total(values: Tensor) -> float:
    """Return the sum of a float32 CPU tensor, added up in float64: the same whatever the number of threads."""
    out = ctypes.c_double()
    where = address(values.view(-1), name="values", dtype=torch.float32, shape=(None,))
    call("rn_sum", where, values.numel(), torch.get_num_threads(), ctypes.addressof(out))
    return out.value
