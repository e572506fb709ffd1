"""Which classes of a dataset are read, and under which names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retinanet.errors import did_you_mean
from retinanet.formats.records import DataError, unknown_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(slots=True)
class ClassSelection:
    """Which classes of a dataset are read, and under which names.

    Args:
        class_list: the class list to use (a model's, the training data's): an object of another class is a fault.
        keep: new names of the classes to keep; objects of other classes are left out. Empty: all classes.
        ignore: new names of the classes whose objects are left out.
        rename: new name of each renamed class. Two classes with one new name become one class.
    """

    class_list: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    _objects: Counter[str] = field(default_factory=Counter)
    """Number of objects of each class of the file; 0 for a class that is listed only."""

    def new_name(self, written: str) -> str | None:
        """Return the new name of an object's class, or None if the object is left out; count the object."""
        self._objects[written] += 1
        name = self.rename.get(written, written)
        return name if self._is_kept(name) else None

    def class_names(self, written: Iterable[str]) -> tuple[str, ...]:
        """Return the class list for the classes that a file lists, each once and in order."""
        listed = list(written)
        for name in listed:
            self._objects[name] += 0
        if self.class_list is not None:
            return self.class_list
        renamed = [self.rename.get(name, name) for name in listed]
        return tuple(dict.fromkeys(name for name in renamed if self._is_kept(name)))

    def fault(self, name: str) -> str | None:
        """Return what is wrong with a class, or None."""
        is_unknown = self.class_list is not None and name not in self.class_list
        return unknown_class(name, self.class_list or ()) if is_unknown else None

    def notes(self, source: Path) -> list[str]:
        """Return a sentence for each class that was left out or renamed.

        Raises:
            DataError: an option names a class that the data does not have.
        """
        self._check_names(source)
        left_out = Counter[str]()
        for written, count in self._objects.items():
            name = self.rename.get(written, written)
            if count and not self._is_kept(name):
                left_out[name] += count
        sentences = [f"{count:,} objects of {name} were left out, as asked" for name, count in sorted(left_out.items())]
        return sentences + [f"{old} was renamed {new}" for old, new in self.rename.items() if old in self._objects]

    def _is_kept(self, name: str) -> bool:
        return name not in self.ignore and (not self.keep or name in self.keep)

    def _check_names(self, source: Path) -> None:
        if self.class_list is not None:  # validation data need not have every class
            return
        renamed = {self.rename.get(name, name) for name in self._objects}
        for option, given, known in (
            ("rename", self.rename, set(self._objects)),
            ("classes", self.keep, renamed),
            ("ignore_classes", self.ignore, renamed),
        ):
            for name in given:
                if name not in known:
                    have = ", ".join(sorted(known)[:20]) or "none"
                    near = did_you_mean(name, known)
                    raise DataError(f"{source}: {option} names {name!r}, the classes are {have}{near}")
