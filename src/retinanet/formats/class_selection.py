"""Selects and renames the classes of a dataset while the dataset is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retinanet.config import separate_names
from retinanet.errors import ConfigError, did_you_mean
from retinanet.formats.records import DataError, unknown_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(slots=True)
class ClassSelection:
    """Classes of a dataset to read, and their new names.

    Args:
        class_list: class list of a model or of the training data; an object of another class is a fault. None: the
            classes of the dataset.
        keep: new names of the classes to keep; objects of other classes are left out. Empty: all classes.
        ignore: new names of the classes whose objects are left out.
        regions: new names of the classes whose objects are ignore regions for every class. They are no classes of the
            dataset.
        rename: new name of each renamed class. Two classes with the same new name become one class.
    """

    class_list: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    _objects: Counter[str] = field(default_factory=Counter, init=False, compare=False)
    """Number of objects of each class in the file; 0 for a class that the file lists without objects."""
    _is_complete: bool = field(default=False, init=False, compare=False)
    """Whether `_objects` holds all classes of the dataset."""

    def new_name(self, written: str) -> str | None:
        """Return the new class name of an object, or None if the object is left out. Call it once per object."""
        self._objects[written] += 1
        name = self.rename.get(written, written)
        return name if self._is_kept(name) else None

    def class_names(self, written: Iterable[str]) -> tuple[str, ...]:
        """Return the class list of the dataset: the selected classes of `written`, each once and in order.

        Call it after `new_name` was called for every object. All classes of the dataset are then known.

        Args:
            written: classes that the file lists, by their names in the file.
        """
        listed = list(written)
        for name in listed:
            self._objects[name] += 0
        self._is_complete = True
        if self.class_list is not None:
            return self.class_list
        renamed = [self.rename.get(name, name) for name in listed]
        return tuple(dict.fromkeys(name for name in renamed if self._is_kept(name) and name not in self.regions))

    def fault(self, name: str) -> str | None:
        """Return the fault of an object whose class is not in `class_list`, or None."""
        is_unknown = self.class_list is not None and name not in self.class_list and name not in self.regions
        return unknown_class(name, self.class_list or ()) if is_unknown else None

    def notes(self) -> list[str]:
        """Return a sentence for each class that was left out, read as ignore regions, or renamed."""
        objects = Counter[str]()
        for written, count in self._objects.items():
            objects[self.rename.get(written, written)] += count
        sentences = [
            f"{count:,} objects of class {name} were left out by --classes or --ignore-classes"
            for name, count in sorted(objects.items())
            if count and not self._is_kept(name)
        ]
        sentences += [
            f"{count:,} objects of class {name} were read as ignore regions (--ignore-regions)"
            for name, count in sorted(objects.items())
            if count and name in self.regions
        ]
        return sentences + [
            f"class {old} was renamed {new}" for old, new in self.rename.items() if old in self._objects
        ]

    def names_in(self, values: Iterable[str]) -> tuple[str, ...]:
        """Return the class names in the values of an option, once all classes of the dataset are known.

        A value that is the new name of a class names this class, also if the value contains commas. Any other value is
        split at its commas.
        """
        known = {*self._renamed(), *(self.class_list or ())}
        return tuple(name for value in values for name in ([value] if value in known else separate_names([value])))

    def check_names(self, source: Path) -> None:
        """Raise `DataError` if an option names a class that the dataset does not have.

        With a `class_list` no name is checked: validation data need not have every class.

        Raises:
            ConfigError: a class is an ignore region and is also kept or left out.
        """
        for option, chosen in (("classes", self.keep), ("ignore_classes", self.ignore)):
            if both := sorted(set(self.regions).intersection(chosen)):
                raise ConfigError(
                    f"ignore_regions and {option} both name {both[0]!r}. Name the class in one of the two options"
                )
        if self.class_list is not None or not self._is_complete:
            return
        renamed = self._renamed()
        for option, names, known in (
            ("rename", self.rename, set(self._objects)),
            ("classes", self.keep, renamed),
            ("ignore_classes", self.ignore, renamed),
            ("ignore_regions", self.regions, renamed),
        ):
            for name in names:
                if name not in known:
                    quoted = [f'"{other}"' if "," in other else other for other in sorted(known)[:20]]
                    near = did_you_mean(name, known)
                    raise DataError(
                        f"{option} names {name!r}, but the classes of {source} are {', '.join(quoted) or 'none'}{near}"
                    )

    def _is_kept(self, name: str) -> bool:
        return name in self.regions or (name not in self.ignore and (not self.keep or name in self.keep))

    def _renamed(self) -> set[str]:
        return {self.rename.get(name, name) for name in self._objects}
