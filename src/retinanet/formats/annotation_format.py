"""What the project needs to know of an annotation format: how to recognise, read and write it.

A format is one `AnnotationFormat` at the end of its own file, and one line in `registry.py`. A format of another
package is the same kind of object, behind an entry point of the group `retinanet.formats`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

from retinanet.formats.text import read_json

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.formats.builder import ReadOptions
    from retinanet.formats.output import WriteTarget
    from retinanet.formats.records import DetectionData

SPLIT_NAMES: Final = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Every split, and the keys or folders that stand for it."""


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
        """The first .json file of a folder, if there is one."""
        first = next(iter(sorted(self.path.glob("*.json"))), None)
        return None if first is None else DataSource(first)


class Evidence(IntEnum):
    """What a format is recognised by, the surest first. Between equal ones, the registry's order decides."""

    OWN_FILE = 1
    """A file whose name or content belongs to this format: data.yaml, annotations.xml."""
    OWN_FOLDER = 2
    """A folder whose name belongs to this format: Annotations."""
    EXPORT = 3
    """The name that a labelling tool gives to its export: result.json."""
    COMMON_NAME = 4
    """A folder or a file with a usual name: labels, boxes.csv."""
    FILES = 5
    """The kind and the content of the files in a folder."""
    TEXT_FILES = 6
    """Text files beside a list of classes."""
    SUFFIX = 7
    """The suffix of a file alone: counts only if no other format recognises the file."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a folder may be.

    Args:
        source: what to read: the folder, or a file in it.
        evidence: what the format is recognised by.
        why: the same in words, such as " by its data.yaml"; empty if the guess is certain and needs no note.
    """

    source: DataSource
    evidence: Evidence
    why: str = ""


Detail = Literal["crowd", "category_ids", "image_ids", "areas", "annotation_ids"]
"""What a format may be unable to store. `crowd`: crowd regions (COCO) and difficult objects (VOC)."""


@dataclass(frozen=True, kw_only=True)
class FormatWriter:
    """How datasets are written in a format.

    Args:
        write: writes all splits, and returns the path that `read` takes for each.
        not_stored: what the format cannot store; the user is told what is lost.
        image_folder: name of the folder for copies of the images, or links to them.
        folder_per_split: whether the images of each split lie in a folder of their own below `image_folder`.
        file_suffix: suffix of the annotation file, if a dataset of one split can be a single file.
        images_found_by: what leads from the annotations to the images. `path`: the annotations hold the paths.
            `name`: they hold the file names, so that images that stay where they are need `--images` to be found.
            `place`: labels are found by the place of their image, so that images must be copied or linked.
    """

    write: Callable[[Mapping[str, DetectionData], WriteTarget], Mapping[str, Path]]
    not_stored: frozenset[Detail] = frozenset()
    image_folder: str = "images"
    folder_per_split: bool = True
    file_suffix: str = ""
    images_found_by: Literal["path", "name", "place"] = "path"


def _no_evidence(_: DataSource) -> None:
    return None


def _nothing(_: Any) -> tuple[()]:
    return ()


def _no_paths(_: Path) -> dict[str, Path]:
    return {}


@dataclass(frozen=True, kw_only=True)
class AnnotationFormat:
    """An annotation format.

    Args:
        name: what `--format` takes.
        title: the name in messages.
        read: reads a source; invalid images and objects are left out and listed in `faults`.
        recognise_file: returns the evidence that a file has this format, or None.
        recognise_folder: yields what in a folder has this format, the surest first.
        expects: what to give, for the message about a path that has no known format; empty to leave it out.
        reads_folder: whether `read` takes a folder.
        splits_in_file: returns which of train, val and test a file holds; `read` takes one of them in its options.
        splits_in_folder: returns the path of each split of a folder that is read as a whole otherwise.
        writer: how datasets are written, if they can be.
    """

    name: str
    title: str
    read: Callable[[DataSource, ReadOptions], DetectionData]
    recognise_file: Callable[[DataSource], Evidence | None] = _no_evidence
    recognise_folder: Callable[[DataSource], Iterable[Candidate]] = _nothing
    expects: str = ""
    reads_folder: bool = False
    splits_in_file: Callable[[Path], Sequence[str]] = _nothing
    splits_in_folder: Callable[[Path], Mapping[str, Path]] = _no_paths
    writer: FormatWriter | None = None
