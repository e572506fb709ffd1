"""Find parts (losses, assigners, backbones, ...) by name.

A name is an entry of a built-in table, or `package.module:Name` for a class or function of another package. A dotted
name in the user's own options is imported. A dotted name in a file (a checkpoint, a flight record) is imported only if
the user allows its module, because importing a module runs its code: see `allowed`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from retinanet.errors import ConfigError, did_you_mean

ENTRY_POINTS: Final = "retinanet.extensions"
"""Entry-point group in which an installed package lists the modules of its parts."""
ALLOW_VARIABLE: Final = "RETINANET_ALLOW"
"""Environment variable with the modules, separated by commas, whose parts a checkpoint may name."""
_IDENTIFIER: Final = r"[^\W\d]\w*"
_DOTTED: Final = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*")


def is_dotted(value: object) -> bool:
    """Return whether a value has the form `package.module:Name`."""
    return isinstance(value, str) and _DOTTED.fullmatch(value) is not None


def check_part(option: str, value: str, table: Collection[str]) -> None:
    """Raise `ConfigError` unless `value` is in the table or has the form `package.module:Name`."""
    if value not in table and not is_dotted(value):
        raise ConfigError(
            f"{option} must be one of {', '.join(table)}, or package.module:Name for a part of another package, "
            f"found {value!r}{did_you_mean(value, table)}"
        )


def find_part(option: str, value: str, table: Mapping[str, str]) -> Any:
    """Return the class or function that an option names.

    Args:
        option: name of the option, for messages.
        value: a name in the table, or `package.module:Name`.
        table: dotted name of each built-in part.

    Raises:
        ConfigError: the name is unknown, its module cannot be imported, or the module lacks the name.
    """
    check_part(option, value, table)
    return import_name(option, table.get(value, value))


def import_name(option: str, dotted: str) -> Any:
    """Return the object with the name `package.module:Name`.

    Raises:
        ConfigError: the module does not exist, cannot be imported, or lacks the name.
    """
    path, _, name = dotted.partition(":")
    try:
        found: Any = importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or path
        if path != missing and not path.startswith(f"{missing}."):
            raise ConfigError(f"{option} {dotted}: importing {path} failed, no module {missing!r}") from error
        raise ConfigError(
            f"{option} {dotted}: no module {missing!r}{did_you_mean(missing, _sibling_modules(missing))}. Install its "
            "package into this Python environment, or add its folder to PYTHONPATH"
        ) from error
    except Exception as error:  # the module's own code runs and can raise anything
        raise ConfigError(f"{option} {dotted}: importing {path} failed with {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise ConfigError(f"{option} {dotted}: {path} has no {name!r}{did_you_mean(part, public)}")
        found = getattr(found, part)
    return found


def load_object(spec: str, *, option: str) -> Any:
    """Return the object that an option names as `package.module:Name`. Raises `ConfigError`."""
    if not is_dotted(spec):
        raise ConfigError(f"{option} must have the form package.module:Name, found {spec!r}")
    return import_name(option, spec)


def call_factory(spec: str, *, option: str) -> Any:
    """Return the result of the factory that an option names as `package.module:factory`. Raises `ConfigError`."""
    factory = load_object(spec, option=option)
    if not callable(factory):
        raise ConfigError(f"{option} {spec}: expected a function or class to call, found {factory!r}")
    try:
        return factory()
    except Exception as error:  # the user's own code runs and can raise anything
        raise ConfigError(f"{option} {spec}: the factory failed with {type(error).__name__}: {error}") from error


def find_class(option: str, value: str, table: Mapping[str, str], base: type) -> Any:
    """Return the class that an option names. Raise `ConfigError` unless it is a subclass of `base`."""
    found = find_part(option, value, table)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(
            f"{option} {value}: expected a subclass of {base.__module__}.{base.__name__}, found {found!r}"
        )
    return found


def used_options(part: Any, config: object) -> dict[str, Any]:
    """Return the fields of a config section for which a part has parameters, by name.

    A class or function receives an option of its section by declaring a keyword parameter with the option's name.
    """
    names = inspect.signature(part).parameters
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def make_part(option: str, part: Any, config: object, **arguments: Any) -> Any:
    """Call a class or function with `arguments` and the fields of `config` for which it has parameters.

    `arguments` take precedence over fields of `config`. All other parameters keep their defaults.

    Raises:
        ConfigError: a parameter without a default is neither in `arguments` nor a field of `config`, or the class lacks
            a method of its base class.
    """
    values = {**used_options(part, config), **arguments}
    missing = [
        name
        for name, parameter in inspect.signature(part).parameters.items()
        if parameter.default is parameter.empty
        and name not in values
        and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]
    where = f"{part.__module__}:{part.__qualname__}"
    if missing:
        raise ConfigError(
            f"{option} {where}: parameter {missing[0]!r} needs a default, because it is not an option of "
            f"{type(config).__name__}{did_you_mean(missing[0], vars(config))}"
        )
    if unimplemented := sorted(getattr(part, "__abstractmethods__", ())):
        raise ConfigError(f"{option} {where}: the class lacks {', '.join(unimplemented)}")
    return part(**values)


def is_allowed(dotted: str, allow: Iterable[str] = ()) -> bool:
    """Return whether a dotted name in a file may be imported.

    A name is allowed if its module, or a package that contains the module, is in `allow`, in the environment variable
    `RETINANET_ALLOW`, or in the entry points `retinanet.extensions` of an installed package.
    """
    module = dotted.partition(":")[0]
    trusted = {*allow, *(name.strip() for name in os.environ.get(ALLOW_VARIABLE, "").split(","))} - {""}
    trusted |= {entry.value for entry in entry_points(group=ENTRY_POINTS)}
    return any(module == name or module.startswith(f"{name}.") for name in trusted)


def check_allowed_parts(values: Mapping[str, Any], options: Iterable[str], allow: Iterable[str] = ()) -> None:
    """Raise `ConfigError` if a file's options name a part whose module the user has not allowed.

    Args:
        values: options stored in the file, by name.
        options: names of the options to check.
        allow: modules that the user allows.
    """
    for option in options:
        value = values.get(option)
        if isinstance(value, str) and is_dotted(value) and not is_allowed(value, allow):
            module = value.partition(":")[0]
            raise ConfigError(
                f"its {option} is {value}, which is code of another package and is not imported without permission. "
                f"If you trust the module {module}, set the environment variable {ALLOW_VARIABLE}={module}, or "
                f"in Python pass allow=[{module!r}]"
            )


def named_modules(values: Mapping[str, Any], options: Iterable[str]) -> list[str]:
    """Return the modules of the dotted names in the user's own options. These modules are allowed for files too."""
    parts = [values[option] for option in options]
    return [part.partition(":")[0] for part in parts if is_dotted(part)]


def _sibling_modules(missing: str) -> list[str]:
    """Return the names of the modules in the package of a missing module, or of all installed top-level modules."""
    package, _, _ = missing.rpartition(".")
    if not package:
        return [module.name for module in pkgutil.iter_modules()]
    paths = getattr(sys.modules.get(package), "__path__", None)
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(paths)] if paths else []
