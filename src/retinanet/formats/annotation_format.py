"""Interface of an annotation format: how to recognise, read and write it.

A format is one `AnnotationFormat` at the end of its own file, listed in one line of `registry.py`. A format of another
package is an `AnnotationFormat` behind an entry point of the group `retinanet.formats`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from retinanet.formats.folder_walk import files_in
from retinanet.formats.text import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.formats.builder import ReadOptions
    from retinanet.formats.output import WriteTarget
    from retinanet.formats.records import DetectionData

SPLIT_NAMES: Final = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Each split, with its names as a key or as a folder."""


def files_of_splits(files: Sequence[Path]) -> dict[str, Path]:
    """Return the file of each split by the last word of its name: instances_val2017.json, train.csv."""
    last_word = {file: file.stem.lower().split("_")[-1] for file in files}
    matching = {
        split: next((file for file in files if last_word[file].startswith(names)), None)
        for split, names in SPLIT_NAMES.items()
    }
    return {split: file for split, file in matching.items() if file is not None} if len(files) > 1 else {}


class DataSource:
    """A file or folder of annotations. A JSON file is parsed once, for all formats."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.suffix = path.suffix.lower()

    @cached_property
    def json(self) -> Any:
        """Content of a JSON file. Raises `DataError`."""
        return read_json(self.path)

    @cached_property
    def first_json(self) -> DataSource | None:
        """First .json file of a folder, or None."""
        first = next(iter(files_in(self.path, ".json")), None)
        return None if first is None else DataSource(first)


class Evidence(IntEnum):
    """Evidence for a format, strongest first. If two formats have equal evidence, the first in the registry wins."""

    OWN_FILE = 1
    """A file whose name or content is specific to the format: data.yaml, annotations.xml."""
    OWN_FOLDER = 2
    """A folder whose name is specific to the format: Annotations."""
    EXPORT = 3
    """A file with the name of a labelling tool's export: result.json."""
    COMMON_NAME = 4
    """A folder or file with a common name: labels, boxes.csv."""
    FILES = 5
    """Suffix and content of the files in a folder."""
    TEXT_FILES = 6
    """Text files beside a class list."""
    SUFFIX = 7
    """Only the suffix of a file: used if no other format recognises the file."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible source of annotations in a folder.

    Args:
        source: the folder, or a file in the folder, to read.
        evidence: evidence for the format.
        why: evidence in words, such as " by its data.yaml"; empty if the format is certain and needs no note.
    """

    source: DataSource
    evidence: Evidence
    why: str = ""


Detail = Literal["crowd", "category_ids", "image_ids", "areas", "annotation_ids"]
"""A detail that some formats cannot store. `crowd`: ignore regions, such as crowd regions and difficult objects."""


@dataclass(frozen=True, kw_only=True)
class FormatWriter:
    """Writer of datasets in a format.

    Args:
        write: function that writes all splits and returns the path of each split for `read`.
        not_stored: details that the format cannot store; a message lists them.
        image_folder: name of the folder for copies of the images or links to the images.
        folder_per_split: whether each split has a subfolder of `image_folder`.
        file_suffix: suffix of the annotation file, if a dataset of one split can be a single file.
        images_found_by: how readers find the images. `path`: the annotations store paths. `name`: the annotations
            store file names, so images that are not copied need `--images`. `place`: labels are found by the place of
            their image, so images must be copied or linked.
    """

    write: Callable[[Mapping[str, DetectionData], WriteTarget], Mapping[str, Path]]
    not_stored: frozenset[Detail] = frozenset()
    image_folder: str = "images"
    folder_per_split: bool = True
    file_suffix: str = ""
    images_found_by: Literal["path", "name", "place"] = "path"


def _no_evidence(_: DataSource) -> None:
    return None


def _no_items(_: Any) -> tuple[()]:
    return ()


def _no_paths(_: Path) -> dict[str, Path]:
    return {}


@dataclass(frozen=True, kw_only=True)
class AnnotationFormat:
    """An annotation format.

    Args:
        name: value of `--format`.
        title: name in messages.
        read: function that reads a source; invalid images and objects are left out and listed in `faults`.
        recognise_file: function that returns the evidence that a file has this format, or None.
        recognise_folder: function that yields the sources of this format in a folder, strongest evidence first.
        expects: description of the input, for the message about an unrecognised path; empty to omit the format.
        reads_folder: whether `read` accepts a folder.
        splits_in_file: function that returns the splits (train, val, test) in a file, or in a folder that is read as a
            whole; the options of `read` name one.
        splits_in_folder: function that returns the path of each split in a folder, such as its train.csv and val.csv.
        writer: writer of datasets; None if the format can only be read.
    """

    name: str
    title: str
    read: Callable[[DataSource, ReadOptions], DetectionData]
    recognise_file: Callable[[DataSource], Evidence | None] = _no_evidence
    recognise_folder: Callable[[DataSource], Iterable[Candidate]] = _no_items
    expects: str = ""
    reads_folder: bool = False
    splits_in_file: Callable[[Path], Sequence[str]] = _no_items
    splits_in_folder: Callable[[Path], Mapping[str, Path]] = _no_paths
    writer: FormatWriter | None = None
