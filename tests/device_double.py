"""A tensor that reports another device than the CPU: code for GPUs runs without a GPU, and its launches are counted.

A `Double` reports the device `DEVICE` and keeps its values in a CPU tensor. Within `double()`, every operation on
doubles computes its result on the CPU and is counted. Operands on two devices are an error, as in CUDA:

    with double() as counts:
        loss = function(to_double(x))
        loss.backward()
    assert (counts.kernels, counts.syncs) == (12, 0), counts.kernels_by_op
    assert torch.equal(to_cpu(loss), expected)

The counts do not depend on the machine. They state what PyTorch's CUDA backend does:

- kernel: an operation that launches at least one kernel or copy. Views and allocations launch nothing.
- sync: the CPU waits for the device. The size of the result depends on values (nonzero, boolean indexing, unique), a
  value is read (item, tolist, bool), or a copy between host and device is not `non_blocking`. A tensor of Python
  numbers on the device (`torch.tensor(..., device=...)`, `new_tensor`, an index that is a list) is such a copy.
- transfer: a copy between host and device, blocking or not.

`DEVICE` has the type `meta`. Every build of PyTorch contains this device type, and its backward pass runs in the thread
of the caller. Kernels in C and Triton, fused optimizers and `torch.autocast` do not run on doubles.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE: Final = torch.device("meta")

ALLOCATIONS: Final = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
READS: Final = {"_local_scalar_dense", "equal", "allclose", "is_nonzero"}
"""Operations that return a Python number."""
SIZED_BY_VALUES: Final = {
    *("nonzero", "argwhere", "masked_select", "bincount", "repeat_interleave", "nms"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive"),
}
COPIES: Final = {"_to_copy", "copy_"}
INDEXED: Final = {"index", "index_put", "index_put_", "_index_put_impl_"}
CONSTRUCTORS: Final = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


class Counts:
    """Numbers of kernels, host synchronisations and transfers since the start or the last `clear`."""

    def __init__(self) -> None:
        self.kernels_by_op: Counter[str] = Counter()
        self.syncs_by_op: Counter[str] = Counter()
        self.transfers_by_op: Counter[str] = Counter()

    def __repr__(self) -> str:
        return (
            f"{self.kernels} kernels {dict(self.kernels_by_op)}, {self.syncs} syncs {dict(self.syncs_by_op)}, "
            f"{self.transfers} transfers {dict(self.transfers_by_op)}"
        )

    @property
    def kernels(self) -> int:
        """Number of operations that launch a kernel or a copy."""
        return self.kernels_by_op.total()

    @property
    def syncs(self) -> int:
        """Number of times that the CPU waits for the device."""
        return self.syncs_by_op.total()

    @property
    def transfers(self) -> int:
        """Number of copies between host and device."""
        return self.transfers_by_op.total()

    def clear(self) -> None:
        """Set all counts to 0."""
        for counter in (self.kernels_by_op, self.syncs_by_op, self.transfers_by_op):
            counter.clear()


class Double(Tensor):
    """A tensor that reports `DEVICE` and has its values in `inner`, on the CPU."""

    is_meta = False  # load_state_dict warns of meta tensors

    @staticmethod
    def __new__(cls, inner: Tensor) -> Double:
        made: Double = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        return made

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Double({self.inner!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {}, Counts())


@contextmanager
def double() -> Iterator[Counts]:
    """Count operations on doubles, and return doubles for `device=DEVICE` and `.to(DEVICE)`."""
    counts = Counts()
    with _Functions(counts), _Operations(counts):
        yield counts


def to_double(value: Any) -> Any:
    """Return a value with all its tensors on the double; a module is changed in place. Nothing is counted.

    The value is a tensor, a module, a dataclass, or a list, tuple or dictionary of such values.
    """
    if isinstance(value, torch.nn.Module):
        moved: dict[int, torch.nn.Parameter] = {}  # a parameter that several modules share stays shared
        for part in value.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None and not isinstance(parameter, Double):
                    if id(parameter) not in moved:
                        on_double = Double(parameter.detach())
                        moved[id(parameter)] = torch.nn.Parameter(on_double, requires_grad=parameter.requires_grad)
                    part._parameters[name] = moved[id(parameter)]
            part._buffers.update({name: to_double(buffer) for name, buffer in part._buffers.items()})
        return value
    return _map_tensors(
        lambda x: x if isinstance(x, Double) else Double(x.detach()).requires_grad_(x.requires_grad), value
    )


def to_cpu(value: Any) -> Any:
    """Return a value with the CPU tensors of its doubles, without gradient history. Nothing is counted."""
    return _map_tensors(lambda x: x.inner if isinstance(x, Double) else x.detach(), value)


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the largest number of bytes of tensors created during `run` that exist at one time.

    On meta tensors, `run` computes nothing, so this is possible for any size. Memory inside of an operation, such as
    the buffer of a sort, is not counted.
    """
    with _LiveBytes() as live:
        run()
    return live.peak


class _Functions(TorchFunctionMode):
    """Handle functions that create tensors on a device or read values outside of the dispatcher."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], Double):
            _count_transfer(self.counts, "tolist", blocking=True)
            return args[0].inner.tolist()
        if func in {Tensor.__getitem__, Tensor.__setitem__} and isinstance(args[0], Double):
            args = (args[0], _lists_to_tensors(args[1]), *args[2:])
        if func in CONSTRUCTORS:
            on_double = isinstance(args[0], Double)
            if func is Tensor.new_tensor and on_double:
                kwargs = {"dtype": args[0].dtype, "device": DEVICE, **kwargs}
                func, args = torch.tensor, args[1:]
            if kwargs.get("device") is not None:
                device = torch.device(kwargs.pop("device"))
                made = func(*args, **kwargs)
                return made if made.device.type == device.type else made.to(device)
        return func(*args, **kwargs)


def _lists_to_tensors(index: Any) -> Any:
    """Return an index with CPU tensors for lists of numbers. CUDA copies both to the device."""
    if isinstance(index, tuple):
        return tuple(_lists_to_tensors(part) for part in index)
    return torch.tensor(index) if isinstance(index, list) else index


class _Operations(TorchDispatchMode):
    """Run and count every operation, and create doubles for `device=DEVICE`."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts
        self.pinned: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = _name(func)
        if name == "_pin_memory":  # fails without a CUDA driver
            pinned = args[0].clone()
            self.pinned.add(pinned.data_ptr())
            return pinned
        if name == "is_pinned":
            return not isinstance(args[0], Double) and args[0].data_ptr() in self.pinned
        return _run(func, args, kwargs or {}, self.counts)


class _LiveBytes(TorchDispatchMode):
    """Add up the sizes of all storages that operations create, until a storage is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {x.untyped_storage()._cdata for x in _tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for x in _tensors(out):
            storage = x.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return out

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], counts: Counts) -> Any:
    """Run one operation on the inner tensors and return doubles if the result belongs on the double."""
    given = _tensors((args, kwargs))
    doubles = [x for x in given if isinstance(x, Double)]
    asked = kwargs.get("device")
    on_double = asked.type == DEVICE.type if asked is not None else bool(doubles)
    if not doubles and not on_double:
        return func(*args, **kwargs)
    name = _name(func)
    if name == "copy_":
        on_double = isinstance(args[0], Double)
    elif asked is None:
        _check_devices(func, name, args, given)
    _count(func, name, args, kwargs, counts, moved=name in COPIES and not (on_double and len(doubles) == len(given)))
    out = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not on_double:
        return out
    same = {id(x.inner): x for x in doubles}  # an in-place operation returns the tensor that it was given

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        wrapper = same.get(id(x))
        if wrapper is None:
            return Double(x)
        if wrapper.shape != x.shape:
            raise NotImplementedError(f"{func}: expected shape {tuple(wrapper.shape)}, found {tuple(x.shape)}")
        return wrapper

    return tree_map(wrap, out)


def _check_devices(func: Any, name: str, args: tuple[Any, ...], given: list[Tensor]) -> None:
    """Raise an error for a CPU operand. CUDA accepts a CPU tensor without dimensions, and a CPU tensor as index."""
    indices = {id(x) for x in _tensors(args[1])} if name in INDEXED else set()
    for x in given:
        if not isinstance(x, Double) and x.device.type == DEVICE.type:
            raise RuntimeError(
                f"{func}: expected tensors with values, found one that was created on {DEVICE} outside double()"
            )
        if not isinstance(x, Double) and x.dim() and id(x) not in indices:
            raise RuntimeError(
                f"{func}: expected all tensors on {DEVICE}, found a tensor of shape {tuple(x.shape)} on {x.device}"
            )


def _count(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], counts: Counts, *, moved: bool) -> None:
    is_view = any(part.alias_info is not None and not part.alias_info.is_write for part in func._schema.returns)
    if is_view or name in ALLOCATIONS or name == "_unsafe_view":
        return
    if moved or name in READS:
        non_blocking = kwargs.get("non_blocking", name == "copy_" and args[2:] == (True,))
        _count_transfer(counts, name, blocking=not non_blocking)
        return
    counts.kernels_by_op[name] += 1
    if name in SIZED_BY_VALUES and kwargs.get("output_size") is None:
        counts.syncs_by_op[name] += 1
    if name in INDEXED:
        indices = _tensors(args[1])
        if any(x.dtype in {torch.bool, torch.uint8} for x in indices):
            counts.syncs_by_op[name] += 1
        for _ in (x for x in indices if not isinstance(x, Double)):
            _count_transfer(counts, name, blocking=True)
    if name == "where":  # CUDA passes a CPU number to a binary kernel, but copies it for where
        for _ in (x for x in args if isinstance(x, Tensor) and not isinstance(x, Double)):
            _count_transfer(counts, name, blocking=True)


def _count_transfer(counts: Counts, name: str, *, blocking: bool) -> None:
    counts.kernels_by_op[name] += 1
    counts.transfers_by_op[name] += 1
    if blocking:
        counts.syncs_by_op[name] += 1


def _name(func: Any) -> str:
    """Return the name of an operation without namespace and overload: "add" for aten::add.Tensor."""
    name: str = func._schema.name.split("::")[1]
    return name


def _inner(x: Any) -> Any:
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.inner if isinstance(x, Double) else x


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def _map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: _map_tensors(change, part) for name, part in fields.items()})
    if isinstance(value, dict):
        return {key: _map_tensors(change, part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_map_tensors(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return change(value) if isinstance(value, Tensor) else value
