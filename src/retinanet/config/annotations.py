"""Marks in an option's annotation that `annotated_types` lacks: short flags, words for values, panels of the help."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """A second name of the option on the command line, such as `-o`."""

    alias: str


@dataclass(frozen=True)
class Word:
    """A word that stands for a value of the option, such as `auto` for a batch size of 0, or that is a value itself."""

    word: str
    value: int | str


@dataclass(frozen=True)
class Panel:
    """The panel of the help that shows the option, if it is not the `PANEL` of the option's section."""

    name: str


@dataclass(frozen=True)
class MostUsed:
    """The help shows the option in its first panel."""


@dataclass(frozen=True)
class NoFlag:
    """The option is an argument on the command line: it has no flag, and its key in a YAML file has no effect."""
