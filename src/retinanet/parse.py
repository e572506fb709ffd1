"""Parse YAML, JSON and XML from untrusted files. No code runs, nothing is fetched, and memory stays bounded.

All readers of the project use these functions. A refused text raises `ParseError` with the position in the text; the
caller adds the path of the file.
"""

from __future__ import annotations

import codecs
import json
import re
import reprlib
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET  # only for the types: defusedxml parses

import yaml
from defusedxml import ElementTree as SafeET
from defusedxml.common import DefusedXmlException

from retinanet.file_kinds import recognise_content

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

MAX_YAML_VALUES: Final = 1_000_000
"""Maximum number of values in a YAML text whose aliases are expanded: ten thousand times that of a long config."""
MAX_YAML_DEPTH: Final = 100
"""Maximum nesting depth of YAML. PyYAML's time grows with its square: 2,000 brackets take seconds."""
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")

_XML_ENCODING: Final = re.compile(rb"\s*<\?xml[^>]*?\sencoding\s*=\s*[\"']([\w.:-]+)")
_MULTI_BYTE: Final = {
    **dict.fromkeys((b"gb2312", b"gbk", b"gb18030"), "gb18030"),
    **{b"big5": "big5", b"euc-kr": "cp949", b"euc-jp": "euc_jp", b"iso-2022-jp": "iso2022_jp"},
    **dict.fromkeys((b"shift_jis", b"windows-31j"), "cp932"),
}
"""Python's name of each declared encoding with several bytes per character. A superset decodes each of them."""

_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxlist, _repr.maxdict, _repr.maxtuple = 3, 8, 8, 8
_repr.maxstring = _repr.maxother = 200


def printable(text: str, max_length: int = 2000) -> str:
    """Return a message with control characters escaped, which could move the cursor, and shortened in the middle."""
    safe = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return safe if len(safe) <= max_length else f"{safe[: max_length // 2]} ... {safe[-max_length // 2 :]}"


_DURATION: Final = re.compile(r"(?:(?P<h>\d{1,6})h)?(?:(?P<m>\d{1,6})m)?(?:(?P<s>\d{1,9})s)?", re.ASCII)


def parse_duration(text: str) -> int:
    """Return a duration in seconds: `90s`, `30m`, `2h` or `1h30m`.

    Raises:
        ValueError: the text has another form, or the duration is 0.
    """
    match = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    hours, minutes, seconds = (int(match[unit] or 0) for unit in "hms") if match else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise ValueError(f"expected a duration such as 90s, 30m, 2h or 1h30m, above 0, found {shorten(text)}")
    return total


class ParseError(ValueError):
    """An invalid text, or one that would grow without bound.

    Args:
        what: the problem.
        where: its position in the text, such as "line 3"; empty if it is unknown.
    """

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.what, self.where = what, where

    def at(self, file: Path) -> str:
        """Return the message, preceded by the path of the file."""
        return f"{file}{', ' if self.where else ''}{self.where}: {self.what}"


def shorten(value: Any) -> str:
    """Return `repr(value)` for a message: shortened if long or deep, with unprintable characters escaped."""
    return printable(_repr.repr(value), 300)


class _DepthLimitedLoader(yaml.SafeLoader):
    """A YAML loader that stops at the first value nested deeper than the limit, without parsing the rest."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and raise `ParseError` if it is nested too deeply."""
        if self.depth > MAX_YAML_DEPTH:
            where = f"line {self.line + 1}"
            raise ParseError(f"YAML that is nested too deeply: more than {MAX_YAML_DEPTH} nested values", where)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def parse_yaml(text: str, *, words: Collection[str] = ()) -> Any:
    """Return the content of a YAML text as plain values. Tags that create Python objects are refused.

    Args:
        text: YAML text.
        words: top-level keys whose values are words: every scalar below them stays as it is written. YAML 1.1 would
            read a class named yes, no, on, off, null, 010 or 12:30 as a truth value, nothing, 8 or 750. A key without
            any value stays None.

    Raises:
        ParseError: the text is not YAML, is nested deeper than `MAX_YAML_DEPTH`, has an alias that contains itself,
            expands to more than `MAX_YAML_VALUES` values, or has a key twice.
    """
    try:
        loader = _DepthLimitedLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_expanded_size(node)
            _refuse_repeated_keys(node)
            _keep_words(node, words)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ParseError(f"not YAML ({error})") from error
    except RecursionError as error:
        raise ParseError("YAML that is nested too deeply") from error
    # PyYAML passes on Python's errors for `2020-99-99`, `!!int ""`, `!!bool maybe` and a number of 5,000 digits.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, ParseError):
            raise
        raise ParseError(f"YAML with an invalid value ({type(error).__name__}: {shorten(str(error))})") from error


def _refuse_repeated_keys(root: yaml.Node) -> None:
    """Raise `ParseError` for a key that a mapping holds twice. PyYAML would drop the first value without a word."""
    for node in _nodes_below(root):
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                what = f"{shorten(key.value)} is set twice, first in line {lines[name]}: remove one of the two"
                raise ParseError(what, f"line {line}")
            lines[name] = line


def _keep_words(root: yaml.Node, keys: Collection[str]) -> None:
    """Mark every scalar below some keys of a mapping as text."""
    if not isinstance(root, yaml.MappingNode):
        return
    below = [
        value
        for key, value in root.value
        if isinstance(key, yaml.ScalarNode) and key.value in keys and value.tag != "tag:yaml.org,2002:null"
    ]
    for node in _nodes_below(*below):
        if isinstance(node, yaml.ScalarNode):
            node.tag = "tag:yaml.org,2002:str"


def _nodes_below(*roots: yaml.Node) -> Iterator[yaml.Node]:
    """Yield some nodes and all nodes below these, each once."""
    open_nodes, seen = list(roots), set[int]()
    while open_nodes:
        node = open_nodes.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            open_nodes += [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            open_nodes += node.value


def _check_expanded_size(root: yaml.Node) -> None:
    """Raise `ParseError` if aliases form a cycle or expand to too many values ("billion laughs")."""
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
        if total > MAX_YAML_VALUES:
            what = f"YAML whose aliases stand for more than {MAX_YAML_VALUES:,} values"
            raise ParseError(what, f"line {node.start_mark.line + 1}")
        sizes[id(node)] = total
        return total

    size(root)


def parse_json(data: bytes) -> Any:
    """Return the content of a JSON file. NaN and infinity, which Python's JSON writer emits, become floats.

    Raises:
        ParseError: the text is not JSON, is nested too deeply, has a number of more than 4,300 digits, or has an
            unpaired surrogate (`\\ud800`).
    """
    try:
        content = json.loads(data)
        if _SURROGATE.search(data):
            json.dumps(content, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        found = recognise_content(data)
        reason = error.msg if found in {"", "text", "JSON text"} else f"found {found}"
        raise ParseError(f"not JSON ({reason})", f"line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ParseError("JSON that is nested too deeply") from error
    except ValueError as error:  # no UTF-8, an unpaired surrogate, or a number with too many digits
        found = recognise_content(data)
        raise ParseError(f"not JSON ({f'found {found}' if found else shorten(str(error))})") from error
    return content


def _xml_text(data: bytes) -> str | bytes:
    """Return XML as text if its encoding is one that expat cannot decode, or otherwise as it is.

    These are encodings with several bytes per character, such as GB2312, Big5 and Shift-JIS, and UTF-16 that the
    declaration calls UTF-8.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if (declared := _XML_ENCODING.match(data)) is None or declared[1].lower() not in _MULTI_BYTE:
        return data
    return data.decode(_MULTI_BYTE[declared[1].lower()])


def parse_xml(path: Path) -> ET.Element:
    """Return the root of an XML file. Entities, which could expand or name other files, are refused.

    Raises:
        ParseError: the file is not XML, or declares entities.
        OSError: the file cannot be read.
    """
    try:
        root: ET.Element | None = SafeET.fromstring(_xml_text(path.read_bytes()))
    except ET.ParseError as error:
        line, column = error.position
        raise ParseError(f"not XML ({str(error).split(':')[0]})", f"line {line}, column {column + 1}") from error
    except DefusedXmlException as error:
        raise ParseError(f"XML that cannot be read ({error})") from error
    except (ValueError, LookupError) as error:  # an unknown encoding, or bytes that are invalid in it
        raise ParseError(f"XML that cannot be read ({shorten(str(error))})") from error
    if root is None:
        raise ParseError("not XML (no element)")
    return root
