"""The command line: parse options, call one command. Flags and YAML keys are the options of the config dataclasses."""

from __future__ import annotations

import ast
import functools
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Group, Parameter

from retinanet.commands.terminal import flush_stdout, print_any_text, print_warning, show_progress
from retinanet.errors import ConfigError, UserError, explain_missing
from retinanet.files import valid_text
from retinanet.version import __version__

if TYPE_CHECKING:
    from cyclopts import ArgumentCollection

COMMANDS: Final = (
    "train",
    "replay",
    "evaluate",
    "compare",
    "tune",
    "predict",
    "check",
    "study",
    "prescribe",
    "convert",
    "convert_weights",
    "split",
    "serve",
    "export",
    "demo",
)
"""Each is a function in the file of its name in `commands/`."""

PIPE_CLOSED: Final = 1
"""Exit status if the reader of stdout has closed the pipe, as Rich and the interpreter end in that case."""
OPTION_FILE: Final = Group("Option file", sort_key=99)

app = App(
    name="retinanet",
    help="RetinaNet with focal loss: train on your own images, understand, export and serve.",
    version=__version__,
    help_format="plaintext",
    group_parameters=Group("Parameters", sort_key=0),
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)


def _docstring(command: str) -> str | None:
    """Return the docstring of a command's function from its source: `retinanet --help` need not import the command."""
    tree = ast.parse((Path(__file__).parent / "commands" / f"{command}.py").read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == command)
    return ast.get_docstring(next(functions))


for _command in COMMANDS:
    app.command(f"retinanet.commands.{_command}:{_command}", help=_docstring(_command))


def _fill_options(file: Path | None, _: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    from retinanet.commands.layers import fill_options  # imports the configs, which `retinanet --help` does without

    fill_options(file, app, commands, arguments)


def _current_flags(tokens: Sequence[str]) -> Sequence[str]:
    if not tokens or tokens[0].startswith("-"):
        return tokens
    from retinanet.commands.layers import current_flags  # imports the configs

    return current_flags(tokens, app)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(group=OPTION_FILE)] = None,
) -> Any:
    """Run a command.

    Args:
        tokens: command and options.
        config: YAML file with options. A flag overrides the file, and the file overrides the preset.
    """
    app.config = (functools.partial(_fill_options, config),)
    try:
        command, bound, _ = app.parse_args(_current_flags(tokens))
    finally:
        app.config = ()  # the next call in this process parses its own --config without this one's
    if "options" in bound.arguments:
        from retinanet.commands.options import from_flags  # imports the configs

        from_flags(bound.arguments)
    return command(*bound.args, **bound.kwargs)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 done with faults or refused by the data, 2 wrong options. It is also 1
    if the reader of stdout has closed the pipe (`retinanet ... | head`).
    """
    # Figures go into files. In a notebook, `!retinanet` inherits the notebook's backend, which this Python may lack.
    os.environ["MPLBACKEND"] = "agg"
    print_any_text()
    show_progress()
    warnings.showwarning = print_warning
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        status = _run(arguments)
        failure = flush_stdout()
    except OSError as error:
        # Rich and logging handle their own failures, so this one is of the command's own files or of print().
        failure = flush_stdout() or error
    if failure is not None:
        status = _report(failure)
    sys.exit(status)


def _run(arguments: list[str] | None) -> int:
    """Run the command line and return the exit status. Print the message of an error that the user can correct."""
    try:
        status = app.meta(arguments, result_action="return_value")
    except (UserError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError):
            error = explain_missing(error, "this command")
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return status if isinstance(status, int) else 0


def _report(error: OSError) -> int:
    """Print which file the operating system refused, and why, and return the exit status. Print nothing for a pipe
    that its reader has closed: the reader needs no more.
    """
    if isinstance(error, BrokenPipeError) and error.filename is None:
        return PIPE_CLOSED
    if error.errno is None:
        raise error  # not from the operating system, but from a library
    file = "" if error.filename is None else f"{valid_text(os.fsdecode(error.filename))}: "
    print(f"error: {file}{error.strerror}", file=sys.stderr)
    return 1
