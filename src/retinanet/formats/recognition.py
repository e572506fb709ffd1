"""Which format a file or folder has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from retinanet.formats.annotation_format import AnnotationFormat, Candidate, DataSource, Evidence
from retinanet.formats.records import DataError
from retinanet.formats.registry import BUILT_IN, all_formats, expected_inputs, find_format

if TYPE_CHECKING:
    from pathlib import Path

ARCHIVES: Final = frozenset((".zip", ".tar", ".gz"))

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """The format of a path.

    Args:
        format: the format.
        source: what to read: the path itself, or a file in the folder.
        why: what the format was recognised by, if that is a guess.
        others: titles of the other formats that the path may have.
    """

    format: AnnotationFormat
    source: DataSource
    why: str = ""
    others: tuple[str, ...] = ()


def recognise(path: Path, format_name: str | None = None) -> Recognised:
    """Return the format of a file or folder.

    Args:
        path: the file or folder.
        format_name: the format, if the user names one.

    Raises:
        DataError: no format recognises the path, or not the one that the user named.
        ConfigError: the user named a format that does not exist.
    """
    source = DataSource(path)
    if format_name is not None:
        return _as_named(source, find_format(format_name))
    found = _candidates(source)
    if not found:
        raise _unknown(path)
    format, first = found[0]
    others = dict.fromkeys(other.title for other, _ in found[1:] if other is not format)
    return Recognised(format=format, source=first.source, why=first.why, others=tuple(others))


def is_recognised(path: Path) -> bool:
    """Return whether some format recognises a file or folder."""
    source = DataSource(path)
    try:
        return any(True for format in all_formats().values() for _ in _candidates_of(format, source))
    except DataError:  # a file that looks like annotations and cannot be read: reading it gives the message
        return True


def _as_named(source: DataSource, format: AnnotationFormat) -> Recognised:
    first = min(_candidates_of(format, source), key=lambda candidate: candidate.evidence, default=None)
    if first is not None:
        return Recognised(format=format, source=first.source, why=first.why)
    if source.path.is_dir() and not format.reads_folder:
        raise DataError(f"{source.path}: expected {format.title}, found no such file in the folder")
    return Recognised(format=format, source=source)


def _candidates(source: DataSource) -> list[tuple[AnnotationFormat, Candidate]]:
    """Return every format that the source may have, the surest first; those of other packages after ours."""
    found = [(format, one) for format in all_formats().values() for one in _candidates_of(format, source)]
    if any(one.evidence < Evidence.SUFFIX for _, one in found):
        found = [(format, one) for format, one in found if one.evidence < Evidence.SUFFIX]
    return sorted(found, key=lambda pair: (pair[0].name not in BUILT_IN, pair[1].evidence))


def _candidates_of(format: AnnotationFormat, source: DataSource) -> Iterator[Candidate]:
    """Yield what one format recognises."""
    try:
        if source.path.is_dir():
            yield from format.recognise_folder(source)
        elif (evidence := format.recognise_file(source)) is not None:
            yield Candidate(source, evidence)
    except Exception as error:
        if format.name in BUILT_IN or isinstance(error, DataError):
            raise
        _logger.warning(
            "the annotation format %r of another package failed to recognise %s (%s: %s)",
            *(format.name, source.path, type(error).__name__, error),
        )


def _unknown(path: Path) -> DataError:
    """Return the error for a path that no format recognises, with what to give instead."""
    files = sorted(path.glob("*.json")) if path.is_dir() else []
    hint = f". Give the file itself: {files[0]}" if files else ""
    if path.suffix.lower() == ".xml":
        hint = f". Give the folder it lies in: {path.parent}"
    if path.suffix.lower() in ARCHIVES:
        hint = ". Unpack it first"
    what = f"the folder {path} without any of them in it" if path.is_dir() else path
    return DataError(f"expected {expected_inputs()}, found {what}{hint}")
