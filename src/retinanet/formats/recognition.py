"""Recognise the annotation format of a file or folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from retinanet.formats.annotation_format import AnnotationFormat, Candidate, DataSource, Evidence
from retinanet.formats.folder_walk import files_in, walk
from retinanet.formats.records import DataError
from retinanet.formats.registry import BUILT_IN, all_formats, expected_inputs, find_format

if TYPE_CHECKING:
    from pathlib import Path

ARCHIVES: Final = frozenset((".zip", ".tar", ".gz"))

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """Recognised format of a path.

    Args:
        format: recognised format.
        source: source to read: the path itself, or a file in the folder.
        why: evidence in words, such as " by its data.yaml"; empty if the format is certain.
        others: titles of other formats that also recognise the path.
    """

    format: AnnotationFormat
    source: DataSource
    why: str = ""
    others: tuple[str, ...] = ()


def recognise(path: Path, format_name: str | None = None) -> Recognised:
    """Return the format of a file or folder.

    Args:
        path: file or folder.
        format_name: name of the format; None to recognise it.

    Raises:
        DataError: no format recognises the path, or the named format finds no source in the folder.
        ConfigError: no format has this name.
    """
    source = DataSource(path)
    if format_name is not None:
        return _recognise_as(source, find_format(format_name))
    candidates = _candidates(source) or _candidates_in_subfolders(source)
    if not candidates:
        raise _unrecognised(path)
    format, first = candidates[0]
    others = dict.fromkeys(other.title for other, _ in candidates[1:] if other is not format)
    return Recognised(format=format, source=first.source, why=first.why, others=tuple(others))


def is_recognised(path: Path) -> bool:
    """Return whether any format recognises a file or folder."""
    source = DataSource(path)
    try:
        return any(True for format in all_formats().values() for _ in _candidates_of(format, source))
    except DataError:  # an annotation file that cannot be parsed: `read` reports the reason
        return True


def _recognise_as(source: DataSource, format: AnnotationFormat) -> Recognised:
    first = min(_candidates_of(format, source), key=lambda candidate: candidate.evidence, default=None)
    if first is not None:
        return Recognised(format=format, source=first.source, why=first.why)
    if source.path.is_dir() and not format.reads_folder:
        raise DataError(f"{source.path}: expected {format.title}, found no such file in the folder")
    return Recognised(format=format, source=source)


def _candidates(source: DataSource) -> list[tuple[AnnotationFormat, Candidate]]:
    """Return all candidates, strongest evidence first, formats of other packages last."""
    pairs = [(format, candidate) for format in all_formats().values() for candidate in _candidates_of(format, source)]
    if any(candidate.evidence < Evidence.SUFFIX for _, candidate in pairs):
        pairs = [(format, candidate) for format, candidate in pairs if candidate.evidence < Evidence.SUFFIX]
    return sorted(pairs, key=lambda pair: (pair[0].name not in BUILT_IN, pair[1].evidence))


def _candidates_in_subfolders(source: DataSource) -> list[tuple[AnnotationFormat, Candidate]]:
    """Return the format of the annotation files beside the images in subfolders, if it reads a folder as a whole."""
    files = walk(source.path, {".xml", ".json"}).files if source.path.is_dir() else []
    for folder in sorted({file.parent for file in files} - {source.path}):
        for format, candidate in _candidates(DataSource(folder)):
            if format.reads_folder and candidate.evidence == Evidence.FILES and candidate.source.path == folder:
                why = f" by the files in {folder.relative_to(source.path)}"
                return [(format, Candidate(source, Evidence.FILES, why))]
    return []


def _candidates_of(format: AnnotationFormat, source: DataSource) -> Iterator[Candidate]:
    """Yield the sources that one format recognises."""
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


def _unrecognised(path: Path) -> DataError:
    """Return the error for a path that no format recognises, with advice."""
    files = files_in(path, ".json") if path.is_dir() else []
    hint = f". Give the file itself: {files[0]}" if files else ""
    if path.suffix.lower() == ".xml":
        hint = f". Give its folder: {path.parent}"
    if path.suffix.lower() in ARCHIVES:
        hint = ". Unpack the archive first"
    what = "the folder holds no dataset" if path.is_dir() else "the file is no dataset"
    return DataError(f"{what} of a known format: {path}{hint}. Expected {expected_inputs()}")
