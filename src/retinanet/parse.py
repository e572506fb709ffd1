"""YAML, JSON and XML from strangers, as data: nothing is run, nothing is fetched, and nothing grows beyond its text.

Every reader of this project goes through these three. What they refuse is a `ParseError`, whose message says where in
the text; the caller adds the file.
"""

from __future__ import annotations

import json
import re
import reprlib
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET  # for the types: parsing is defusedxml's

import yaml
from defusedxml import ElementTree as SafeET
from defusedxml.common import DefusedXmlException

if TYPE_CHECKING:
    from pathlib import Path

MOST_NODES: Final = 1_000_000
"""Values that a YAML text may stand for once its aliases are written out: ten thousand times a long config."""
DEEPEST: Final = 100
"""Lists within lists in a YAML text; PyYAML's time grows with the square of the depth, seconds for 2,000 brackets."""
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")

_short = reprlib.Repr()
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxtuple = 3, 8, 8, 8
_short.maxstring = _short.maxother = 200


def plain(text: str, most: int = 2000) -> str:
    """Return a message without control characters, which could move a terminal's cursor, and cut in its middle."""
    safe = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return safe if len(safe) <= most else f"{safe[: most // 2]} ... {safe[-most // 2 :]}"


class ParseError(ValueError):
    """A text that is not what it should be, or that would grow without bound: `what` is wrong, and `where` in it."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.what, self.where = what, where

    def at(self, file: Path) -> str:
        """Return the message with the file before it."""
        return f"{file}{', ' if self.where else ''}{self.where}: {self.what}"


def shorten(value: Any) -> str:
    """Return `repr(value)`, cut where it is long or deep, and with what no terminal can print escaped: for messages."""
    return plain(_short.repr(value), 300)


class _ShallowLoader(yaml.SafeLoader):
    """Stops at the first value that is nested too deeply, before the rest is looked at."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count how deep it is."""
        if self.depth > DEEPEST:
            where = f"line {self.line + 1}"
            raise ParseError(f"YAML that is nested too deeply: more than {DEEPEST} values within each other", where)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds: plain values only, no tags that make objects.

    Raises:
        ParseError: not YAML; nested deeper than `DEEPEST`; aliases that contain themselves, or stand for more than
            `MOST_NODES` values.
    """
    try:
        loader = _ShallowLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_growth(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ParseError(f"not YAML ({error})") from error
    except RecursionError as error:
        raise ParseError("YAML that is nested too deeply") from error
    # PyYAML hands on what Python says of `2020-99-99`, `!!int ""`, `!!bool maybe`, a number of 5,000 digits
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, ParseError):
            raise
        raise ParseError(f"YAML with a value that is none ({type(error).__name__}: {shorten(str(error))})") from error


def _refuse_growth(root: yaml.Node) -> None:
    """Raise where aliases make a cycle, or a few lines stand for millions of values ("billion laughs")."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise ParseError("YAML with an alias that contains itself", f"line {node.start_mark.line + 1}")
        if id(node) in sizes:
            return sizes[id(node)]
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, yaml.MappingNode):
            total += sum(size(key) + size(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(item) for item in node.value)
        open_nodes.remove(id(node))
        if total > MOST_NODES:
            what = f"YAML whose aliases stand for more than {MOST_NODES:,} values"
            raise ParseError(what, f"line {node.start_mark.line + 1}")
        sizes[id(node)] = total
        return total

    size(root)


def parse_json(data: bytes) -> Any:
    """Return what a JSON file holds. NaN and infinity become floats, as Python's own writer puts them out.

    Raises:
        ParseError: not JSON, nested too deeply, a number of more than 4,300 digits, or half a character (`\\ud800`).
    """
    try:
        content = json.loads(data)
        if _SURROGATE.search(data):
            json.dumps(content, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ParseError(f"not JSON ({error.msg})", f"line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ParseError("JSON that is nested too deeply") from error
    except ValueError as error:  # no UTF-8, half a character, a number that Python does not convert
        raise ParseError(f"not JSON ({shorten(str(error))})") from error
    return content


def parse_xml(path: Path) -> ET.Element:
    """Return the root of an XML file: entities, which could grow or name other files, are refused.

    Raises:
        ParseError: not XML, or XML with entities.
        OSError: the file cannot be read.
    """
    try:
        root: ET.Element | None = SafeET.parse(path).getroot()
    except ET.ParseError as error:
        line, column = error.position
        raise ParseError(f"not XML ({str(error).split(':')[0]})", f"line {line}, column {column + 1}") from error
    except DefusedXmlException as error:
        raise ParseError(f"XML that cannot be read ({error})") from error
    except (ValueError, LookupError) as error:  # an encoding that does not exist
        raise ParseError(f"XML that cannot be read ({shorten(str(error))})") from error
    if root is None:
        raise ParseError("not XML (no element)")
    return root
