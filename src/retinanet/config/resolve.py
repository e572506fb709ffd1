"""Flat names and composed configs: configs hold sections, but flags, YAML keys and saved files have no nesting.

An option has one name in the whole program. `resolve` puts named options into the sections that declare them,
`to_dict` gives the options of all sections side by side. `resolve` and `with_options` record which options were given,
and `given_options` returns their names: an option given with the value of its default is not an open option.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from retinanet.config.annotations import Word
from retinanet.config.presets import PRESETS
from retinanet.config.validation import Hint, read_hint
from retinanet.errors import ConfigError, did_you_mean
from retinanet.files import user_path
from retinanet.former_names import current_options

CONFIG_VERSION: Final = 1

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Option:
    """An option of a config.

    Attributes:
        name: the Python argument, the YAML key, and the flag without its dashes.
        annotation: type, range and marks.
        default: `dataclasses.MISSING` for an option that must be given.
        section: the class that declares the option.
    """

    name: str
    annotation: Any
    default: Any
    section: type

    @property
    def is_required(self) -> bool:
        """Whether the option must be given."""
        return self.default is dataclasses.MISSING


def options_of(cls: Any) -> Mapping[str, Option]:
    """Return the options of a config class and of its sections, by name."""
    return _options_of(cls)


@functools.cache
def _options_of(cls: Any) -> Mapping[str, Option]:
    found: dict[str, Option] = {}
    for field in _fields(cls):
        if not dataclasses.is_dataclass(field.type):
            found[field.name] = Option(field.name, field.type, field.default, cls)
            continue
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
        values = {} if default is None else flatten(default)
        for name, option in options_of(field.type).items():
            found[name] = dataclasses.replace(option, default=values.get(name, option.default))
    return found


def flatten(config: Any) -> dict[str, Any]:
    """Return the values of all options of a config and of its sections, by name."""
    values: dict[str, Any] = {}
    for field in _fields(config):
        value = getattr(config, field.name)
        values |= flatten(value) if dataclasses.is_dataclass(field.type) else {field.name: value}
    return values


def to_dict(config: Any) -> dict[str, Any]:
    """Return the options as plain numbers, strings and lists, fit for YAML, JSON and a checkpoint."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return {name: plain(value) for name, value in flatten(config).items()}


def resolve(cls: type[C], options: Mapping[str, Any], *, given: Collection[str] | None = None) -> C:
    """Build a config from named options on top of the preset that they name.

    Values from YAML (lists, strings for paths) are brought to the option's type.

    Args:
        cls: class of the config.
        options: value of each option, by name. Options that are missing have the value of the preset or the default.
        given: names of the options that the user gave. By default, all of `options`.

    Raises:
        ConfigError: an unknown name (with the nearest known one) or a bad value.
    """
    known = options_of(cls)
    options = current_options(options, known)
    _refuse_unknown(options, known)
    preset = options.get("preset", "default")
    if not isinstance(preset, str) or preset not in PRESETS:
        near = did_you_mean(preset, PRESETS)
        raise ConfigError(f"unknown preset {preset!r}, expected one of {', '.join(PRESETS)}{near}")
    merged = {**{name: value for name, value in PRESETS[preset].items() if name in known}, **options}
    missing = [name for name, option in known.items() if option.is_required and name not in merged]
    if missing:
        raise ConfigError(f"missing option: {', '.join(missing)}")
    config = _build(cls, {name: _to_type(name, v, read_hint(known[name].annotation)) for name, v in merged.items()})
    return _record_given(config, options if given is None else given)


def given_options(config: Any) -> frozenset[str]:
    """Return the names of the options that the user gave: on the command line, in YAML or in Python.

    The record is made by `resolve` and `with_options`. In a config that was built from its sections directly, an option
    counts as given if its value differs from the value of the preset or, without one, from its default.
    """
    recorded: frozenset[str] | None = vars(config).get(_GIVEN)
    if recorded is not None:
        return recorded
    values = flatten(config)
    defaults = {name: option.default for name, option in options_of(type(config)).items()}
    defaults |= PRESETS[values.get("preset", "default")]
    return frozenset(name for name, value in values.items() if value != defaults[name])


_GIVEN: Final = "_given_options"


def _record_given(config: C, names: Collection[str]) -> C:
    """Record which options were given. The record is no field: configs with equal values are equal."""
    object.__setattr__(config, _GIVEN, frozenset(names))
    return config


def section_from_dict(cls: type[C], values: Mapping[str, Any], *, given: Collection[str] | None = None) -> C:
    """Return a config from a saved dictionary that may hold more options than `cls` has.

    For example, return the `ModelConfig` of a checkpoint, which holds the options of the whole `TrainConfig`. `given`
    has the meaning that it has in `resolve`.
    """
    known = options_of(cls)
    current = current_options(values, known, warn=False)
    return resolve(cls, {name: value for name, value in current.items() if name in known}, given=given)


def with_options(config: C, **options: Any) -> C:
    """Return a config with other values for some options, given by their names, whichever section declares them.

    Raises:
        ConfigError: an unknown name or a bad value.
    """
    known = options_of(type(config))
    options = current_options(options, known)
    _refuse_unknown(options, known)
    return _record_given(_replace(config, options), given_options(config).union(options))


def _replace(config: C, options: Mapping[str, Any]) -> C:
    """Return a config with other values for some options, without a record of the given options."""
    changed: dict[str, Any] = {}
    for field in _fields(config):
        if not dataclasses.is_dataclass(field.type):
            changed |= {field.name: options[field.name]} if field.name in options else {}
        elif mine := _part(options, field.type):
            changed[field.name] = _replace(getattr(config, field.name), mine)
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def _build(cls: type[C], values: Mapping[str, Any]) -> C:
    """Distribute values over the sections of a config."""
    arguments: dict[str, Any] = {}
    for field in _fields(cls):
        if not dataclasses.is_dataclass(field.type):
            arguments |= {field.name: values[field.name]} if field.name in values else {}
            continue
        mine = _part(values, field.type)
        if field.default_factory is dataclasses.MISSING:
            arguments[field.name] = _build(field.type, mine)  # type: ignore[arg-type]
        elif mine:
            arguments[field.name] = _replace(field.default_factory(), mine)
    return cls(**arguments)


def _part(values: Mapping[str, Any], section: Any) -> dict[str, Any]:
    known = options_of(section)
    return {name: value for name, value in values.items() if name in known}


def _fields(config: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(config)


def _refuse_unknown(options: Mapping[str, Any], known: Mapping[str, Option]) -> None:
    for name in options:
        if name not in known:
            raise ConfigError(f"unknown option {name!r}{did_you_mean(name, known)}")


def _to_type(name: str, value: Any, hint: Hint) -> Any:
    """Bring a value as YAML writes it, or a number, array or tensor, to the annotated type, or refuse it."""
    if value is None and hint.optional:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hint.items is not None:
        is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        if not is_list or (hint.length is not None and len(value) != hint.length):
            count = "any number of" if hint.length is None else hint.length
            raise ConfigError(f"{name} needs {count} values, found {value!r:.200}")
        return tuple(_to_type(name, item, hint.items) for item in value)
    for mark in hint.marks:
        if isinstance(mark, Word) and value == mark.word:
            return mark.value
    if hint.choices:
        return value if isinstance(value, str) else str(value)  # `check_options` compares it with the choices
    right = isinstance(value, bool) if hint.kind is bool else not isinstance(value, bool)
    try:
        converted = user_path(value) if hint.kind is Path else hint.kind(value)
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right or (hint.kind is int and isinstance(value, float) and value != converted):
        raise ConfigError(f"{name} must be of type {hint.kind.__name__}, found {value!r:.200}")
    return converted
