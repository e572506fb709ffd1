"""Objects of a user's own package, named on the command line or in YAML as `package.module:Name`."""

from __future__ import annotations

import importlib
from typing import Any

from retinanet.errors import ConfigError, did_you_mean


def load_object(spec: str, *, option: str) -> Any:
    """Return the object with the name `package.module:Name`. Importing a module runs its code.

    Raises:
        ConfigError: another form, a module that does not exist or cannot be imported, or a module without the name.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and name and module_name):
        raise ConfigError(f"{option}: expected package.module:Name, found {spec!r}")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{option} {spec}: no module {error.name!r}. Install its package into this Python environment, or add its "
            "folder to PYTHONPATH"
        ) from error
    except Exception as error:  # the user's module runs here and can raise anything
        raise ConfigError(
            f"{option} {spec}: importing {module_name} failed with {type(error).__name__}: {error}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{option} {spec}: {module_name} has no {name!r}{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    return found
