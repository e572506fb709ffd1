"""What fills the options that the command line leaves open: the YAML file, then the config of the resumed run."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cyclopts
from cyclopts import App, ArgumentCollection

from retinanet.commands.options import token_text
from retinanet.config.option_file import read_yaml
from retinanet.errors import ConfigError, did_you_mean
from retinanet.files import user_path
from retinanet.former_names import OPTIONS, REMOVED_OPTIONS, current_options

_FLAG: Final = re.compile(r"--(?P<no>no-|empty-)?(?P<name>[a-z-]+)(?P<value>=.*)?", re.DOTALL)
"""A flag, whether it switches off, and the value after an equals sign."""


def fill_options(file: Path | None, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill open options of a command from a YAML file, then from the run that `--resume` continues.

    Raises:
        ConfigError: a file that cannot be read, or that names an unknown option.
    """
    if file is not None:
        _fill(read_yaml(file), str(file), app, commands, arguments)
    if _given(arguments, "--resume") == "True" and (folder := _given(arguments, "--output")):
        _refuse_checkpoint(user_path(folder))
        path = user_path(folder) / "config.yaml"
        if path.exists():
            values = {k: v for k, v in read_yaml(path).items() if k not in {"output", "resume"}}
            values = current_options(values, _names(arguments), warn=False)
            _fill(values, str(path), app, commands, arguments)


def _refuse_checkpoint(path: Path) -> None:
    """Raise `ConfigError` for a checkpoint that was given as the run to resume, as other tools take it."""
    if path.suffix in {".ckpt", ".pt", ".pth"} and not path.is_dir():
        raise ConfigError(
            f"--resume needs the folder of the training run, found the checkpoint {path}. Resume the run with: "
            f"{shlex.join(('retinanet', 'train', '--resume', '-o', str(path.parent)))}"
        )


def _fill(
    values: dict[str, Any], source: str, app: App, commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    known = _names(arguments)
    values = current_options({key.replace("-", "_"): value for key, value in values.items()}, known)
    for key in values:
        if key not in known:
            raise ConfigError(f"{source}: unknown option {key!r}{did_you_mean(key, sorted(known))}")
    present = {key: value for key, value in values.items() if value is not None}
    # Nested under the command: at the root, cyclopts would take the key `train` for the command of that name.
    cyclopts.config.Dict({commands[0]: present}, source=source)(app[commands[0]], commands, arguments)


def current_flags(tokens: Sequence[str], app: App) -> list[str]:
    """Return the words of a command line under the flags of today, without removed flags.

    A former flag is one of `retinanet.former_names`; each of those that were removed takes one value. A lone `-`, which
    stands for standard output and which cyclopts reads as a flag, is joined to the flag before it: `--json=-`.
    """
    tokens = _join_dashes(tokens)
    for word, following in itertools.pairwise(tokens):
        if word == "--resume":
            _refuse_checkpoint(user_path(following))
    former = {name.replace("_", "-") for name in (*OPTIONS, *REMOVED_OPTIONS)}
    flags = [_FLAG.fullmatch(token) for token in tokens]
    if not any(flag and flag["name"] in former for flag in flags):
        return list(tokens)
    known = _names(app[tokens[0]].assemble_argument_collection()) if tokens[0] in app else set()
    current: list[str] = []
    skip_value = False
    for token, flag in zip(tokens, flags, strict=True):
        if flag is None or flag["name"] not in former:
            current += [] if skip_value and flag is None else [token]
            skip_value = False
            continue
        names = list(current_options({flag["name"].replace("-", "_"): None}, known))
        current += [f"--{flag['no'] or ''}{name.replace('_', '-')}{flag['value'] or ''}" for name in names]
        skip_value = not names and not flag["value"]
    return current


def _join_dashes(tokens: Sequence[str]) -> list[str]:
    joined: list[str] = []
    for word in tokens:
        if word == "-" and joined and _FLAG.fullmatch(joined[-1]):
            joined[-1] += "=-"
        else:
            joined.append(word)
    return joined


def _names(arguments: ArgumentCollection) -> set[str]:
    return {name.removeprefix("--").replace("-", "_") for argument in arguments for name in argument.names}


def _given(arguments: ArgumentCollection, name: str) -> str | None:
    argument = arguments.get(name, None)
    if argument is None or not argument.tokens:
        return None
    return token_text(argument.tokens[-1])
