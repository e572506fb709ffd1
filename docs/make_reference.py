"""Write docs/reference/options.md and docs/reference/python.md from the config and the public docstrings.

usage: python docs/make_reference.py [--check]    with --check, fail if a page is not up to date
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, Final

from cyclopts import Argument, Group

from retinanet.cli import COMMANDS, app
from retinanet.former_names import OPTIONS, REMOVED_OPTIONS

REFERENCE: Final = Path(__file__).parent / "reference"
MODULES: Final = (
    *("retinanet", "retinanet.losses", "retinanet.model", "retinanet.matching", "retinanet.postprocess"),
    *("retinanet.data", "retinanet.formats", "retinanet.checkpoint", "retinanet.evaluate", "retinanet.train"),
)
"""Modules whose `__all__` is the public interface."""


def options_page() -> str:
    """Return the page of all commands and options."""
    lines = [
        "# Options",
        "",
        "Each option is a flag on the command line (`--image-size 512`), a key in a YAML file that `--config` names",
        "(`image_size: 512`), and a Python argument (`image_size=512`). A flag overrides the file; the file overrides",
        "the preset. `--flag` switches a yes/no option on, `--no-flag` switches it off. Terms are defined in the",
        "[glossary](glossary.md). This page is generated from the source by `docs/make_reference.py`.",
        "",
    ]
    for name in (command.replace("_", "-") for command in COMMANDS):
        arguments = [a for a in app[name].assemble_argument_collection() if a.parse and a.show]
        lines += [f"## retinanet {name}", "", *(app[name].help or "").splitlines(), ""]
        panels: dict[Group, list[Argument]] = {}
        for argument in arguments:
            panels.setdefault(argument.parameter.group[0], []).append(argument)
        for panel in sorted(panels, key=lambda panel: panel.sort_key if isinstance(panel.sort_key, int) else 0):
            lines += [f"### {panel.name} of {name}", "", "| option | default | meaning |", "|---|---|---|"]
            lines += [_row(argument) for argument in panels[panel]] + [""]
    lines += ["## Former names", "", "These names still work. A warning names the replacement.", ""]
    lines += ["| former name | name today |", "|---|---|"]
    lines += [f"| {_flag(old)} | {' or '.join(map(_flag, new))} |" for old, new in OPTIONS.items()]
    lines += [f"| {_flag(old)} | has no effect: {instead} |" for old, instead in REMOVED_OPTIONS.items()]
    return "\n".join(lines) + "\n"


def _flag(name: str) -> str:
    return f"`--{name.replace('_', '-')}`"


def _row(argument: Argument) -> str:
    names = [name for name in argument.names if not name.startswith(("--no-", "--empty-"))]
    default = "required" if argument.required else ""
    if not argument.required and argument.show_default:
        value = argument.field_info.default
        default = f"`{argument.show_default(value) if callable(argument.show_default) else value}`"
    meaning = (argument.parameter.help or "").replace("|", "\\|")
    choices = argument.get_choices()
    choices_text = f" One of: {', '.join(choices)}." if choices else ""
    return f"| {', '.join(f'`{name}`' for name in names)} | {default} | {meaning}{choices_text} |"


def python_page() -> str:
    """Return the page of the public Python interface."""
    lines = [
        "# Python interface",
        "",
        "The public names of each module with their docstrings. Names of arrays and tensors end in a shape: N images",
        "of a batch, A anchors, K classes, G ground-truth boxes, D detections, H and W height and width. This page is",
        "generated from the source by `docs/make_reference.py`.",
        "",
    ]
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines += [f"## {module_name}", "", (inspect.getdoc(module) or "").split("\n\n")[0], ""]
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == module_name
        ]
        for name in names:
            value = getattr(module, name)
            if inspect.isclass(value) or callable(value):
                lines += _entry(name, value, module_name)
    return "\n".join(lines).rstrip() + "\n"


def _entry(name: str, value: Any, module_name: str) -> list[str]:
    home = getattr(value, "__module__", module_name)
    if home != module_name and home in MODULES:  # described once, where it is defined
        return [f"### {module_name}.{name}", "", f"See {home}.{name}.", ""]
    lines = [f"### {module_name}.{name}", "", "```text", _signature(name, value), "```", ""]
    lines += ["```text", inspect.getdoc(value) or "", "```", ""]
    if inspect.isclass(value):
        for method_name, method in vars(value).items():
            if method_name.startswith("_") or not inspect.isfunction(method) or not method.__doc__:
                continue
            lines += [f"`{name}{_signature('.' + method_name, method)}`: {inspect.getdoc(method).splitlines()[0]}", ""]
    return lines


def _signature(name: str, value: Any) -> str:
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return name
    parts, is_keyword_only = [], False
    for parameter in parameters:
        if parameter.name in {"self", "args", "kwargs"} and parameter.default is parameter.empty:
            if parameter.name == "self":
                continue
            parts.append(str(parameter).split(":")[0])
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword_only:
            is_keyword_only = True
            parts.append("*")
        default = parameter.default
        has_value = default is not parameter.empty and isinstance(default, int | float | str | bool | tuple | None)
        text = parameter.name + (f"={default!r}" if has_value else "=..." if default is not parameter.empty else "")
        parts.append(f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else text)
    return f"{name}({', '.join(parts)})"


PAGES: Final = {"options.md": options_page, "python.md": python_page}


def main() -> None:
    """Write the pages, or with --check compare them."""
    REFERENCE.mkdir(exist_ok=True)
    outdated = []
    for name, make in PAGES.items():
        path, text = REFERENCE / name, make()
        if "--check" in sys.argv:
            outdated += [str(path)] if not path.exists() or path.read_text(encoding="utf-8") != text else []
        else:
            path.write_text(text, encoding="utf-8")
    if outdated:
        sys.exit(f"not up to date: {', '.join(outdated)}. Run `python docs/make_reference.py`")


if __name__ == "__main__":
    main()
