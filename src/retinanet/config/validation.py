"""One check for the options of every section: finite numbers, ranges and choices come from the annotations."""

import dataclasses
import functools
import math
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from retinanet.config.annotations import Word
from retinanet.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Hint:
    """An annotation, taken apart.

    Attributes:
        kind: int, float, bool, str, Path, or `tuple` with `items`.
        optional: None is allowed.
        choices: of a `Literal`; empty: any value.
        items: annotation of the values of a tuple.
        length: number of values of a tuple; None: any.
        marks: what `Annotated` holds: ranges, and the marks of `config.annotations`.
    """

    kind: type
    optional: bool = False
    choices: tuple[str, ...] = ()
    items: "Hint | None" = None
    length: int | None = None
    marks: tuple[Any, ...] = ()


@functools.cache
def read_hint(annotation: Any) -> Hint:
    """Return an option's annotation, taken apart."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = read_hint(arguments[0])
        return dataclasses.replace(inner, marks=(*inner.marks, *annotation.__metadata__))
    if origin in {UnionType, Union}:
        return dataclasses.replace(read_hint(next(a for a in arguments if a is not NoneType)), optional=True)
    if origin is tuple:
        length = None if arguments[-1] is Ellipsis else len(arguments)
        return Hint(tuple, items=read_hint(arguments[0]), length=length)
    if origin is Literal:
        return Hint(str, choices=arguments)
    return Hint(annotation)


def check_options(config: Any) -> None:
    """Raise `ConfigError` for the first option of a config whose value its annotation does not allow.

    NaN and infinity, which pass most comparisons, are refused in every number.
    """
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(field.type):
            continue  # a section checks its own options
        hint, value = read_hint(cast(Any, field.type)), getattr(config, field.name)
        if value is None and hint.optional:
            continue
        if any(isinstance(mark, Word) and value == mark.value for mark in hint.marks):
            continue
        if hint.items is None:
            _check(field.name, value, hint)
        else:
            _check_items(field.name, value, hint, hint.items)


def _check(name: str, value: Any, hint: Hint) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, found {value}")
    if hint.choices and value not in hint.choices:
        raise ConfigError(
            f"{name} must be one of {', '.join(hint.choices)}, found {value!r}{did_you_mean(value, hint.choices)}"
        )
    limits = Limits.of(hint.marks)
    if not limits.hold(value):
        raise ConfigError(f"{name} must be {limits}, found {value}")


def _check_items(name: str, values: Any, hint: Hint, item: Hint) -> None:
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} must be finite, found {value}")
        if item.choices and value not in item.choices:
            near = did_you_mean(value, item.choices)
            raise ConfigError(f"{name} may hold {', '.join(item.choices)}, found {value!r}{near}")
    limits = Limits.of(item.marks)
    least = next((mark.min_length for mark in hint.marks if isinstance(mark, MinLen)), 0)
    if len(values) < least or not all(limits.hold(value) for value in values):
        what = "values" if item.choices or item.kind is str else "numbers"
        count = f"{'one' if least == 1 else least} or more {what}" if least else what
        raise ConfigError(f"{name} must hold {count} {limits}".rstrip() + f", found {values or 'none'}")


@dataclasses.dataclass(frozen=True)
class Limits:
    """The range of a number; its text completes "must be ..."."""

    gt: Any = None
    ge: Any = None
    lt: Any = None
    le: Any = None

    @classmethod
    def of(cls, marks: Iterable[Any]) -> "Limits":
        """Return the limits that the marks of an annotation set."""
        found: dict[str, Any] = {}
        for mark in marks:
            for part in mark if isinstance(mark, Interval) else (mark,):
                if isinstance(part, (Gt, Ge, Lt, Le)):
                    found |= dataclasses.asdict(part)
        return cls(**found)

    def hold(self, value: Any) -> bool:
        """Return whether a value lies in the range."""
        return (
            (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
        )

    def __str__(self) -> str:
        gt, ge, lt, le = (None if x is None else int(x) if x == int(x) else x for x in dataclasses.astuple(self))
        if ge is not None and le is not None:
            return f"between {ge} and {le}"
        parts = [f"above {gt}"] if gt is not None else []
        parts += [f"{ge} or more"] if ge is not None else []
        parts += [f"below {lt}"] if lt is not None else []
        parts += [f"at most {le}"] if le is not None else []
        return " and ".join(parts)
