"""Flags from configs: one flag for each option of a command's config, whichever section declares the option."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias, TypeVar

import cyclopts
from annotated_types import MinLen
from cyclopts import Group, Parameter, Token

from retinanet.config import Option, options_of, resolve
from retinanet.config.annotations import Flag, MostUsed, NoFlag, Panel, Word
from retinanet.config.validation import Hint, Limits, read_hint

C = TypeVar("C")

REQUIRED: Final = Group("Required", sort_key=1)
MOST_USED: Final = Group("Most used", sort_key=2)
PANELS: Final = {
    name: Group(name, sort_key=place)
    for place, name in enumerate(
        (
            *(
                "Study",
                "Prescription",
                "Check",
                "Compare",
                "Tuning",
                "Data",
                "Model",
                "Anchors and matching",
                "Loss",
                "Augmentation",
                "Optimisation",
            ),
            *("Run", "Output"),
        ),
        start=3,
    )
}
"""Panels of the help by name, in their order on the screen: the values of `PANEL` in the sections of the config."""
PLAIN: Final = Group("Options", sort_key=2)
"""The one panel of a command with few options."""
MOST_WITHOUT_PANELS: Final = 30
"""A command with at most this many options shows them in one panel."""

if TYPE_CHECKING:
    Flags: TypeAlias = Annotated[C, "flags"]
else:

    class Flags:
        """`Flags[TrainConfig]` annotates a command's argument: its value is a `TrainConfig`, made from flags.

        The annotation is evaluated when the command is parsed or explained, not when its module is imported.
        """

        def __class_getitem__(cls, config: type[Any]) -> Any:
            return Annotated[flags_of(config), Parameter(name="*")]


@functools.cache
def flags_of(config: Any) -> type[Any]:
    """Return a flat dataclass with one field, and so one flag, for each option of a config and of its sections."""
    fields = []
    options = options_of(config).values()
    in_panels = len(options) > MOST_WITHOUT_PANELS
    for option in sorted(options, key=lambda option: not option.is_required):
        default = dataclasses.field() if option.is_required else dataclasses.field(default=option.default)
        fields.append((option.name, _annotation(option, _panel(option) if in_panels else PLAIN), default))
    # cyclopts takes a class of the module `types`, which make_dataclass would name, for one of Python's own.
    namespace = {"__module__": __name__, "config_class": config}
    return dataclasses.make_dataclass(
        config.__name__, fields, bases=(GivenFlags,), frozen=True, kw_only=True, namespace=namespace
    )


class GivenFlags:
    """Base of the dataclasses of `flags_of`: `given` holds the flags and YAML keys that the user gave, by name.

    cyclopts passes only these to the dataclass, and the dataclass fills in the defaults of the others.
    """

    given: Mapping[str, Any]

    def __new__(cls, **given: Any) -> Self:
        """Record the arguments."""
        self = super().__new__(cls)
        object.__setattr__(self, "given", given)
        return self


def from_flags(arguments: dict[str, Any]) -> None:
    """Replace the flags among the arguments of a command by the config that they make, in place.

    Raises:
        ConfigError: a value that its option does not allow, or options that contradict each other.
    """
    for name, value in arguments.items():
        if isinstance(value, GivenFlags):
            arguments[name] = resolve(value.config_class, value.given)  # type: ignore[attr-defined]


def token_text(token: Token) -> str:
    """Return a value as it was written, on the command line or in a file."""
    return str(
        token.implicit_value if token.value == "" and token.implicit_value is not cyclopts.UNSET else token.value
    )


def _panel(option: Option) -> Group:
    """Return the panel of the help that shows an option."""
    marks = read_hint(option.annotation).marks
    if option.is_required or any(isinstance(mark, NoFlag) for mark in marks):
        return REQUIRED
    if any(isinstance(mark, MostUsed) for mark in marks):
        return MOST_USED
    name = next((mark.name for mark in marks if isinstance(mark, Panel)), option.section.PANEL)  # type: ignore[attr-defined]
    return PANELS[name]


def _annotation(option: Option, panel: Group) -> Any:
    """Return the type of an option, with the panel, aliases and help text of its flag."""
    hint = read_hint(option.annotation)
    marks = hint.marks
    words = {mark.word: mark.value for mark in marks if isinstance(mark, Word)}
    parameter = Parameter(
        alias=[mark.alias for mark in marks if isinstance(mark, Flag)],
        converter=functools.partial(_number_or_word, words, hint.kind) if words else None,
        group=(panel,),
        show_default=_default_text if option.default not in ((), None) else False,
        help=" ".join(filter(None, (_help_texts(option.section)[option.name], range_text(hint)))),
        parse=False if any(isinstance(mark, NoFlag) for mark in marks) else None,
    )
    kind = _without_marks(hint)
    if texts := tuple(value for value in words.values() if isinstance(value, str)):
        kind |= Literal[texts]
    return Annotated[kind, parameter]


def _default_text(value: Any) -> str:
    """Return a default as it would be typed on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(_default_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def range_text(hint: Hint) -> str:
    """Return a sentence with the range of a number, or "" for an option without a range."""
    numbers = hint.items or hint
    limits = str(Limits.of(numbers.marks))
    least = next((mark.min_length for mark in hint.marks if isinstance(mark, MinLen)), 0)
    count = f"{hint.length} values" if hint.length else "one or more values" if least else "any number of values"
    if hint.items is None:
        return f"Range: {limits}." if limits else ""
    return f"Takes {count}" + (f", each {limits}." if limits else ".")


def _without_marks(hint: Hint) -> Any:
    """Return the type alone. Where pydantic is loaded, cyclopts would let pydantic check the ranges, in other words."""
    kind: Any = hint.kind
    if hint.choices:
        kind = Literal[hint.choices]
    elif hint.items is not None:
        item: Any = _without_marks(hint.items)
        items = (item, ...) if hint.length is None else (item,) * hint.length
        kind = tuple.__class_getitem__(items)
    return kind | None if hint.optional else kind


def _number_or_word(words: Mapping[str, int | str], kind: type, _: Any, tokens: Sequence[Token]) -> Any:
    value = token_text(tokens[-1])
    return words[value] if value in words else kind(value)


@functools.cache
def _help_texts(section: Any) -> dict[str, str]:
    """Return the string below each option in the source of a section."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        line.target.id: inspect.cleandoc(text.value.value).replace("\n", " ")
        for line, text in itertools.pairwise(body)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
