"""The command line: parse options, call one command. Flags and YAML keys are the fields of the config dataclasses."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, ArgumentCollection, Parameter

from retinanet.commands.check import check
from retinanet.commands.convert import convert
from retinanet.commands.convert_weights import convert_weights
from retinanet.commands.demo import demo
from retinanet.commands.evaluate import evaluate
from retinanet.commands.export import export
from retinanet.commands.options import token_text
from retinanet.commands.predict import predict
from retinanet.commands.replay import replay
from retinanet.commands.serve import serve
from retinanet.commands.split import split
from retinanet.commands.study import study
from retinanet.commands.terminal import show_progress
from retinanet.commands.train import train
from retinanet.config import PRESETS
from retinanet.errors import ConfigError, UserError, did_you_mean, explain_missing
from retinanet.parse import ParseError, parse_yaml
from retinanet.version import __version__

app = App(
    name="retinanet",
    help="RetinaNet with focal loss: train on your own pictures, understand, export and serve.",
    version=__version__,
    help_format="plaintext",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)
for _command in (
    *(train, replay, evaluate, predict, check, study, convert, convert_weights, split, serve, export, demo),
):
    app.command(_command)


class _Layers:
    """What fills the options that the command line leaves open: the YAML file, the resumed run's config, the preset."""

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def __call__(self, _: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        if self.file is not None:
            self._fill(read_yaml(self.file), str(self.file), commands, arguments)
        if _given(arguments, "--resume") == "True" and (folder := _given(arguments, "--output")):
            path = Path(folder) / "config.yaml"
            if path.exists():
                values = {k: v for k, v in read_yaml(path).items() if k not in {"output", "resume"}}
                self._fill(values, str(path), commands, arguments)
        preset = _given(arguments, "--preset")
        if preset in PRESETS:
            known = _names(arguments)  # a command such as `check` has part of the options that a preset sets
            values = {key: value for key, value in PRESETS[preset].items() if key in known}
            self._fill(values, f"preset {preset}", commands, arguments)

    @staticmethod
    def _fill(values: dict[str, Any], source: str, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
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


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> Any:
    """Run a command.

    Args:
        tokens: command and options.
        config: YAML file with options; flags go before it, and it before the preset.
    """
    app.config = (_Layers(config),)
    try:
        return app(tokens, result_action="return_value")
    finally:
        app.config = ()  # the next call in this process parses its own --config without this one's


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 done with faults or refused by the data, 2 wrong options."""
    show_progress()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        status = app.meta(arguments, result_action="return_value")
    except (UserError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError):
            error = explain_missing(error, "this command")
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    sys.exit(status if isinstance(status, int) else 0)
