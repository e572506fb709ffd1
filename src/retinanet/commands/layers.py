"""What fills the options that the command line leaves open: the YAML file, the resumed run's config, the preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cyclopts
from cyclopts import App, ArgumentCollection

from retinanet.commands.options import token_text
from retinanet.config import PRESETS
from retinanet.errors import ConfigError, did_you_mean
from retinanet.parse import ParseError, parse_yaml


def fill_options(file: Path | None, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill open options of a command from a YAML file, then from the run that `--resume` continues, then by the preset.

    Raises:
        ConfigError: a file that cannot be read, or that names an unknown option.
    """
    if file is not None:
        _fill(read_yaml(file), str(file), app, commands, arguments)
    if _given(arguments, "--resume") == "True" and (folder := _given(arguments, "--output")):
        path = Path(folder) / "config.yaml"
        if path.exists():
            values = {k: v for k, v in read_yaml(path).items() if k not in {"output", "resume"}}
            _fill(values, str(path), app, commands, arguments)
    preset = _given(arguments, "--preset")
    if preset in PRESETS:
        known = _names(arguments)  # a command such as `check` has part of the options that a preset sets
        values = {key: value for key, value in PRESETS[preset].items() if key in known}
        _fill(values, f"preset {preset}", app, commands, arguments)


def _fill(
    values: dict[str, Any], source: str, app: App, commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    known = _names(arguments)
    for key in values:
        if key.replace("-", "_") not in known:
            raise ConfigError(f"{source}: unknown option {key!r}{did_you_mean(key, sorted(known))}")
    present = {key: value for key, value in values.items() if value is not None}
    # Nested under the command: at the root, cyclopts would take the key `train` for the command of that name.
    cyclopts.config.Dict({commands[0]: present}, source=source)(app[commands[0]], commands, arguments)


def _names(arguments: ArgumentCollection) -> set[str]:
    return {name.removeprefix("--").replace("-", "_") for argument in arguments for name in argument.names}


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the options of a YAML file. Raises `ConfigError` with the line at fault."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"config: {path} cannot be read: {error.strerror}") from error
    except ParseError as error:
        raise ConfigError(f"config: {error.at(path)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config: {path}: not UTF-8 text ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"config: {path} must hold `option: value` lines, found {type(values).__name__}")
    return values


def _given(arguments: ArgumentCollection, name: str) -> str | None:
    argument = arguments.get(name, None)
    if argument is None or not argument.tokens:
        return None
    return token_text(argument.tokens[-1])
