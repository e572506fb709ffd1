"""Load the C library, choose its instruction set, and check the arguments of its functions.

ctypes loads the library, so calls release the GIL, and the library does not depend on the ABI of Python or torch. The
loaded library and the handlers of forks are the only global state of `ops`.

Environment variables:
    RETINANET_NATIVE: 0 switches the library off.
    RETINANET_ISA: avx512, avx2 or baseline: the instruction set. The best one of the processor is used if the processor
        lacks the chosen one.
    RETINANET_NATIVE_LIBRARY: path of another library, for builds with sanitizers.
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

ABI: Final = 5
"""RN_ABI of native/common.h. A library with another number was built from other sources and is not used."""
_PROCESS: Final = os.getpid()
"""Id of the process that imported this module. A forked child has another id."""
INSTRUCTION_SETS: Final = ("baseline", "avx2", "avx512")
"""Names of the instruction sets; the index is the number that rn_set_isa takes.

The baseline is SSE2 on x86-64, NEON on arm64, and scalar code on other processors.
"""

DTYPE_CODES: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""Number of each float type in native/candidates.c and native/focal.c."""

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
    "rn_atss": (
        *(POINTER, INT64, POINTER, POINTER, POINTER, INT64, POINTER, INT64),
        *(INT64, INT, INT, POINTER),
    ),
    "rn_task_aligned": (
        *(POINTER, INT64, POINTER, INT64, POINTER, INT64, POINTER, POINTER, POINTER, POINTER, INT64),
        *(INT64, INT, INT, POINTER),
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
"""Argument types of each exported function. All functions return an int, 0 for success."""
_REJECTIONS: Final = {
    "rn_focal": "a positive anchor has a class id outside 0..K-1",
    "rn_task_aligned": "an object has a class id outside 0..K-1",
    "rn_winograd": "a tile index does not exist, or a size is not supported",
}
"""Meaning of the return code 1 of each function that checks values."""


class _ForkGuard:
    """Let a forked child compute with one thread if its parent had several, before any code of the child runs.

    A forked child has only the thread that called fork. OpenMP still counts the parent's other threads, so the first
    operation of torch that needs them would wait forever. PyTorch's data loader gives its workers one thread, too.
    """

    def __init__(self) -> None:
        self._threads = 1

    def before(self) -> None:
        """Store the number of threads of the parent, at least 2 where the system does not tell."""
        try:
            self._threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - only the number is needed
        except OSError:
            self._threads = 2

    def after_in_child(self) -> None:
        """Set the number of torch's threads to 1."""
        if self._threads > 1 and torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            log.info("this forked process computes with one thread; start it with spawn to use more threads")


if hasattr(os, "register_at_fork"):
    _guard = _ForkGuard()
    os.register_at_fork(before=_guard.before, after_in_child=_guard.after_in_child)


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the loaded library, or None if it is missing, switched off or unusable. The reason is logged once.

    Raises:
        ValueError: RETINANET_ISA is not the name of an instruction set.
    """
    if os.environ.get("RETINANET_NATIVE") == "0":
        log.info("native kernels: switched off by RETINANET_NATIVE=0; the slower torch code is used")
        return None
    path = os.environ.get("RETINANET_NATIVE_LIBRARY") or _built_library_path()
    if path is None:
        log.warning(
            "native kernels: the C library was not built, so the slower torch code is used. Install a C compiler, then "
            "reinstall retinanet"
        )
        return None
    try:
        native = ctypes.CDLL(path)
        version = int(native.rn_abi())
        if version != ABI:
            raise OSError(f"expected version {ABI}, found {version}: reinstall retinanet")
        for name, arguments in _SIGNATURES.items():
            function = getattr(native, name)
            function.argtypes, function.restype = arguments, INT
    except (OSError, AttributeError) as error:
        log.warning("native kernels: %s cannot be used (%s); the slower torch code is used", path, error)
        return None
    isa = os.environ.get("RETINANET_ISA")
    if isa:
        if isa not in INSTRUCTION_SETS:
            raise ValueError(f"RETINANET_ISA must be one of {', '.join(INSTRUCTION_SETS)}, found {isa!r}")
        native.rn_set_isa(INSTRUCTION_SETS.index(isa))
    _share_threads(native)
    log.info("native kernels: %s, %s", path, INSTRUCTION_SETS[native.rn_get_isa()])
    return native


def _share_threads(native: ctypes.CDLL) -> None:
    """Let the library compute on the threads of torch's OpenMP. Without OpenMP, the library starts its own threads.

    In a forked child, the library starts its own threads, too: the child has none of the parent's threads, and OpenMP
    would wait for the missing threads forever.
    """
    native.rn_set_team.argtypes, native.rn_set_team.restype = (POINTER,), INT
    if os.getpid() != _PROCESS or not hasattr(os, "RTLD_NOLOAD"):
        return
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*.so*")):
        try:
            team = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY).GOMP_parallel
        except (OSError, AttributeError):  # this library is not loaded, or has no GOMP_parallel
            continue
        native.rn_set_team(ctypes.cast(team, POINTER))
        os.register_at_fork(after_in_child=lambda: native.rn_set_team(None))
        return


def _built_library_path() -> str | None:
    """Return the path of the library that was built with the package, or None if it was not built."""
    spec = importlib.util.find_spec("retinanet.ops._native")
    return spec.origin if spec is not None else None


def available() -> bool:
    """Return whether the library is loaded and usable."""
    return library() is not None


def instruction_set() -> str | None:
    """Return the instruction set in use, one of `INSTRUCTION_SETS`, or None without the library."""
    native = library()
    return None if native is None else INSTRUCTION_SETS[native.rn_get_isa()]


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets that this processor supports, the baseline first; empty without the library."""
    native = library()
    if native is None:
        return ()
    before = native.rn_get_isa()
    best = native.rn_set_isa(-1)
    native.rn_set_isa(before)
    return INSTRUCTION_SETS[: best + 1]


@contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Compute with an instruction set within a `with` block, for tests and benchmarks. It holds for all threads.

    Raises:
        ValueError: the processor lacks the instruction set, or the library is missing.
    """
    native = library()
    if native is None or name not in instruction_sets():
        raise ValueError(f"expected one of {instruction_sets()}, found {name!r}")
    before = native.rn_get_isa()
    native.rn_set_isa(INSTRUCTION_SETS.index(name))
    try:
        yield
    finally:
        native.rn_set_isa(before)


def buffer(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor that a C function writes to, whatever torch's default device and dtype are."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def address(tensor: Tensor, *, name: str, dtype: torch.dtype, shape: Sequence[int | None]) -> int:
    """Return the address of a tensor's values after checking everything that the C code assumes.

    Every tensor that a C function reads or writes passes through this function, also a tensor from `buffer`.

    Args:
        tensor: dense, contiguous CPU tensor with memory.
        name: name of the tensor in error messages.
        dtype: required type.
        shape: required shape; None as a size accepts any size.

    Raises:
        TypeError: the tensor has another device, layout or type, or no memory of its own.
        ValueError: the tensor has another shape or is not contiguous.
    """
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype != dtype:
        raise TypeError(
            f"{name}: expected a dense CPU tensor of {dtype}, found {tensor.layout}, {tensor.device}, {tensor.dtype}"
        )
    if tensor.ndim != len(shape) or any(
        required is not None and required != size for required, size in zip(shape, tensor.shape, strict=True)
    ):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, found {tuple(tensor.shape)}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name}: expected a contiguous tensor, found strides {tensor.stride()}")
    place = tensor.data_ptr()
    if tensor.is_neg() or (place == 0 and tensor.numel()):
        # A lazily negated view holds other values than it shows; a traced or functional tensor holds none.
        raise TypeError(f"{name}: expected a tensor that stores its values, found a {type(tensor).__name__} without")
    return place


def call(name: str, *arguments: float | int | None) -> None:
    """Call a function of the library, without the GIL.

    Raises:
        RuntimeError: the library is missing.
        MemoryError: the function could not allocate its working memory.
        ValueError: the function found invalid arguments.
    """
    native = library()
    if native is None:
        raise RuntimeError(f"{name}: expected a loaded C library, found none: check available() before the call")
    code = getattr(native, name)(*arguments)
    if code == -1:
        raise MemoryError(f"{name}: the C function could not allocate its working memory")
    if code != 0:
        raise ValueError(f"{name}: invalid arguments (code {code}): {_REJECTIONS.get(name, 'see its C source')}")


def total(values: Tensor) -> float:
    """Return the sum of a float32 CPU tensor, added in float64. The sum does not depend on the number of threads."""
    out = ctypes.c_double()
    where = address(values.view(-1), name="values", dtype=torch.float32, shape=(None,))
    call("rn_sum", where, values.numel(), torch.get_num_threads(), ctypes.addressof(out))
    return out.value
