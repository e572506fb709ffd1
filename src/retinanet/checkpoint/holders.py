"""Find a network's tensors in the content of a file, under any key and behind any prefix of their names.

Training scripts store a state dict under "model", "state_dict", "ema", ... and wrappers add prefixes such as "module.".
This module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_DEPTH: Final = 6
"""Maximum number of nested dictionaries and lists that are searched."""
MAX_ITEMS: Final = 100
"""Maximum length of a list that is searched. Longer lists hold measurements, not state dicts."""
MAX_MODULES: Final = 2_000
"""Maximum number of modules of a pickled network that are read. A RetinaNet with ResNet-152 has about 500."""
_WRAPPERS: Final = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts of tensor names that DDP, DeepSpeed, `AveragedModel`, `torch.compile` and FSDP add, at any depth."""
_AVERAGED: Final = re.compile(r"ema|averaged?|swa|shadow|teacher", re.IGNORECASE)
"""Words in the place of averaged weights."""
_NOT_NETWORK: Final = re.compile(r"(?:\w+_)?(?:loss|losses|criterion|metrics?)(?:_\w+)?\.|n_averaged$")
"""Tensors of losses, metrics and `AveragedModel`, which have no effect on predictions."""


@dataclass(frozen=True, slots=True)
class FoundState:
    """Tensors of one network in a file.

    Args:
        place: keys and prefix in words, such as `checkpoint["ema"], prefix "model."`.
        state: values by name, without the prefix.
    """

    place: str
    state: Mapping[str, Any]

    @property
    def is_averaged(self) -> bool:
        """Whether the place names averaged weights."""
        return _AVERAGED.search(self.place) is not None


class StoredObject(dict[Any, Any]):
    """Stands for a pickled object of a class that is not loaded. Its content is kept, and no code of its class runs."""

    origin = "object"

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        self.attributes: Any = None

    def __setstate__(self, attributes: Any) -> None:
        """Store the attributes of the object."""
        self.attributes = attributes

    def __call__(self, *_: Any, **__: Any) -> StoredObject:
        """Return a further stand-in, for an object that a pickled object makes."""
        return StoredObject()

    def append(self, _: Any) -> None:
        """Drop an item of a list."""

    def extend(self, _: Any) -> None:
        """Drop the items of a list."""

    add = append


def find_states(content: Any, marker: str) -> list[FoundState]:
    """Return the tensors of each network in a file's content.

    Args:
        content: content of the file.
        marker: part of a name that only the network's state dict contains, such as "backbone.fpn.inner_blocks.".
    """
    found = []
    for place, entries in _dictionaries(content, "checkpoint", MAX_DEPTH, set()):
        names = _unwrap(entries)
        places = {name: name.find(marker) for name in names if marker in name}
        prefixes = {name[:start] for name, start in places.items() if start == 0 or name[start - 1 : start] == "."}
        for prefix in sorted(prefixes):
            state = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
            state = {name: value for name, value in state.items() if not _NOT_NETWORK.match(name)}
            found.append(FoundState(f'{place}, prefix "{prefix}"' if prefix else place, state))
    return found


def _dictionaries(
    content: Any, place: str, depth: int, seen: set[tuple[int, int]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each dictionary in a file's content with its place, outer ones first.

    Args:
        content: content of the file, or a part of it.
        place: place of `content` in words.
        depth: number of nested levels that are searched below `content`.
        seen: id and depth of every searched part. A few hundred bytes can hold a dictionary at millions of places.
    """
    if (id(content), depth) in seen:
        return
    seen.add((id(content), depth))
    if isinstance(content, StoredObject) and isinstance(content.attributes, Mapping):
        if "_parameters" in content.attributes:
            yield place, dict(_module_state(content))
        else:
            yield from _dictionaries(content.attributes, place, depth, seen)
    if isinstance(content, Mapping):
        yield place, {name: value for name, value in content.items() if isinstance(name, str)}
        items = list(content.items())
    elif isinstance(content, list | tuple) and len(content) <= MAX_ITEMS:
        items = list(enumerate(content))
    else:
        return
    for key, value in items if depth else ():
        if isinstance(value, Mapping | list | tuple):
            yield from _dictionaries(value, f"{place}[{key!r}]", depth - 1, seen)


def _module_state(network: StoredObject) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a pickled `torch.nn.Module` by name, as its state dict contains them."""
    modules = [("", network)]
    for prefix, module in modules:  # the list grows in the loop; a damaged file can contain a module in itself
        attributes = module.attributes if isinstance(module.attributes, Mapping) else {}
        for kind in ("_parameters", "_buffers"):
            values = attributes.get(kind)
            for name, value in values.items() if isinstance(values, Mapping) else ():
                if value is not None:
                    yield f"{prefix}{name}", value
        children = attributes.get("_modules")
        for name, child in children.items() if isinstance(children, Mapping) else ():
            if isinstance(child, StoredObject) and len(modules) < MAX_MODULES:
                modules.append((f"{prefix}{name}.", child))


def _unwrap(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entries without the parts of names that wrappers add, unless two names would become equal."""
    unwrapped = {_WRAPPERS.sub("", name): value for name, value in entries.items()}
    return unwrapped if len(unwrapped) == len(entries) else entries


def describe_content(content: Any) -> str:
    """Return in words what a file contains: its keys with the type or the number of tensors of each."""
    if isinstance(content, StoredObject):
        return f"a pickled {content.origin}"
    if not isinstance(content, Mapping):
        return f"a value of type {type(content).__name__}"
    if not content:
        return "an empty dictionary"
    tensors = [str(name) for name, value in content.items() if hasattr(value, "shape")]
    others = [f"{name} ({_kind(value)})" for name, value in content.items() if not hasattr(value, "shape")]
    parts = [f"{len(tensors):,} tensors ({_few(tensors)})"] if tensors else []
    return " and ".join([*parts, *([f"the keys {_few(others)}"] if others else [])])


def _kind(value: Any) -> str:
    if isinstance(value, StoredObject):
        return value.origin
    if isinstance(value, Mapping):
        tensors = [str(name) for name, entry in value.items() if hasattr(entry, "shape")]
        return f"{len(tensors):,} tensors: {_few(tensors, 2)}" if tensors else f"{len(value):,} entries"
    return type(value).__name__


def _few(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
