"""Config objects from plain values, and back."""

import dataclasses
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from retinanet.config.presets import PRESETS
from retinanet.config.train import TrainConfig
from retinanet.errors import ConfigError, did_you_mean

CONFIG_VERSION: Final = 1


C = TypeVar("C")


def resolve(cls: type[C], options: dict[str, Any]) -> C:
    """Build a config from named options on top of the preset that they name.

    Values from YAML (lists, strings for paths) are brought to the field's type.

    Raises:
        ConfigError: an unknown name (with the nearest known one) or a bad value.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in options:
        if name not in fields:
            raise ConfigError(f"unknown option {name!r}{did_you_mean(name, fields)}")
    preset = options.get("preset", "default")
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}: one of {', '.join(PRESETS)}{did_you_mean(preset, PRESETS)}")
    merged = {**{name: value for name, value in PRESETS[preset].items() if name in fields}, **options}
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in merged]
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")
    if merged.get("batch_size") == "auto" and issubclass(cls, TrainConfig):
        merged["batch_size"] = 0
    return cls(**{name: _to_type(name, value, fields[name].type) for name, value in merged.items()})


def _to_type(name: str, value: Any, expected: Any) -> Any:
    """Bring a value as YAML writes it to the annotated type, or refuse it."""
    if get_origin(expected) in {UnionType, Union}:
        if value is None:
            return None
        expected = next(choice for choice in get_args(expected) if choice is not NoneType)
    if get_origin(expected) is tuple:
        items = get_args(expected)
        if not isinstance(value, (list, tuple)) or (items[-1] is not Ellipsis and len(value) != len(items)):
            count = "any number of" if items[-1] is Ellipsis else len(items)
            raise ConfigError(f"{name} needs {count} values, found {value!r:.200}")
        return tuple(_to_type(name, item, items[0]) for item in value)
    if get_origin(expected) is Literal:
        return value if isinstance(value, str) else str(value)  # __post_init__ knows the choices
    right = isinstance(value, bool) if expected is bool else not isinstance(value, bool)
    try:
        converted = expected(value)
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right or (expected is int and isinstance(value, float) and value != converted):
        raise ConfigError(f"{name} must be of type {expected.__name__}, found {value!r:.200}")
    return converted


def section(cls: type[C], config: object) -> C:
    """Return the part of a larger config that `cls` declares, for example the `ModelConfig` within a `TrainConfig`."""
    return cls(**{f.name: getattr(config, f.name) for f in dataclasses.fields(cls)})  # type: ignore[arg-type]


def to_dict(config: Any) -> dict[str, Any]:
    """Return the config as plain numbers, strings and lists, fit for YAML, JSON and a checkpoint."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def section_from_dict(cls: type[C], values: dict[str, Any]) -> C:
    """Return `cls` from a saved dictionary that may hold more than it declares (a whole `TrainConfig`)."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return resolve(cls, {name: value for name, value in values.items() if name in names})
