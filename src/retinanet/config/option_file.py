"""YAML file with options: the file that `--config` names, and the config.yaml of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from retinanet.errors import ConfigError
from retinanet.files import read_text
from retinanet.parse import ParseError, parse_yaml

_CLASS_OPTIONS: Final = (
    *("classes", "ignore_classes", "ignore-classes"),
    *("ignore_regions", "ignore-regions", "rename"),
)
"""Options that hold class names, which YAML must not read as truth values or numbers."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the options of a YAML file. Raises `ConfigError` with the line at fault."""
    try:
        values = parse_yaml(read_text(path), words=_CLASS_OPTIONS)
    except OSError as error:
        raise ConfigError(f"the option file cannot be read ({error.strerror}): {path}") from error
    except ParseError as error:
        raise ConfigError(f"config: {error.at(path)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the option file is not UTF-8 text ({error}): {path}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"the option file must hold `option: value` lines, found {type(values).__name__}: {path}")
    return values
