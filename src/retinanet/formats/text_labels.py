"""Datasets with a text file of labels for each image: a folder of labels beside a folder of images.

KITTI, VisDrone and DOTA have this layout. Each of these formats declares its folders and reads single lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import SPLIT_NAMES, Candidate, DataSource, Evidence
from retinanet.formats.box_numbers import BoxNumbers
from retinanet.formats.builder import DatasetBuilder
from retinanet.formats.folder_walk import files_in, walk
from retinanet.formats.image_files import AMBIGUOUS_ADVICE, AmbiguousImageError
from retinanet.formats.records import SKIP_IMAGE, DataError
from retinanet.formats.text import read_lines
from retinanet.formats.voc_images import VocImageFinder, images_without_annotations
from retinanet.images import ImageError, read_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinanet.formats.builder import ReadOptions
    from retinanet.formats.class_selection import ClassSelection

ParseLine = Callable[[str, int, AnnotatedImage, "ClassSelection"], AnnotatedObject | str | None]
"""Function that returns the object of a line, a text that describes its fault, or None for a line without an object.

Its arguments are the text of the line, the number of the line, the image, and the classes to read.
"""
_FILES_TO_SAMPLE: Final = 20
"""Number of label files of which the first non-empty one shows whether a folder has the format."""


@dataclass(frozen=True, kw_only=True)
class TextLabels:
    """Where a format keeps its labels and its images.

    Args:
        title: name of the format in messages.
        label_folders: folders of labels, relative to the folder of the dataset, most specific first.
        image_folders: folders of images, relative to a folder above the labels.
        is_label: function that returns whether a line is a line of the format.
        suffix: suffix of the images in the official dataset, for messages.
    """

    title: str
    label_folders: tuple[str, ...]
    image_folders: tuple[str, ...]
    is_label: Callable[[str], bool]
    suffix: str = ".jpg"

    def recognise_folder(self, folder: DataSource) -> Iterator[Candidate]:
        """Yield the folder if it, or a subfolder for a split, holds labels of the format."""
        if self._labels_of(folder.path) is not None:
            yield Candidate(folder, Evidence.OWN_FOLDER)
        elif splits := self._split_folders(folder.path):
            yield Candidate(folder, Evidence.OWN_FOLDER, f" by its folder {next(iter(splits.values())).name}")

    def splits(self, folder: Path) -> list[str]:
        """Return the splits of a folder that has a subfolder for each split, such as VisDrone2019-DET-train."""
        if not folder.is_dir() or self._labels_of(folder) is not None:
            return []
        return list(self._split_folders(folder))

    def read(
        self, source: DataSource, options: ReadOptions, parse_line: ParseLine, *, numbers: BoxNumbers
    ) -> DatasetBuilder:
        """Return a builder with all images and objects.

        Args:
            source: folder of the dataset, of one of its splits, or of the labels.
            options: options of the reader. `split` names a split of a folder with several splits.
            parse_line: function that reads a line.
            numbers: meaning of the numbers of a box.

        Raises:
            DataError: the folder has no labels of the format.
        """
        splits = self._split_folders(source.path) if source.path.is_dir() else {}
        folder = splits.get(options.split or "train", source.path)
        labels = self._labels_of(source.path) or self._labels_of(folder)
        if labels is None:
            raise DataError(
                f"{source.path}: expected {self.title}, a folder with labels in {' or '.join(self.label_folders[:2])}; "
                "found no such labels"
            )
        builder = DatasetBuilder(source.path, options, numbers, root=labels.parent)
        places = [options.images] if options.images is not None else self._image_places(labels)
        finder = VocImageFinder(places, labels, suffix=self.suffix)
        search = walk(labels, {".txt"})
        for file in search.files:
            _read_file(file, finder, builder, parse_line)
        if options.images is None:
            for path, expected in images_without_annotations(builder, finder, search.files, labels):
                what = f"expected labels in {expected}, found no such file"
                advice = "If the image has no objects, write an empty file; or leave it out with --skip-invalid"
                builder.add_fault(path, "", what, advice)
        builder.note_left_out(search.left_out)
        builder.note_left_out(finder.by_stem.left_out)
        return builder

    def _labels_of(self, folder: Path) -> Path | None:
        """Return the folder of the labels of a dataset without splits, or None."""
        own = [folder] if folder.name in {name.rpartition("/")[2] for name in self.label_folders} else []
        places = [*own, *(folder / name for name in self.label_folders)]
        return next((place for place in places if place.is_dir() and self._has_labels(place)), None)

    def _has_labels(self, folder: Path) -> bool:
        """Return whether the first line of the first label file that is not empty has the format."""
        files = files_in(folder, ".txt") or walk(folder, {".txt"}).files
        for file in files[:_FILES_TO_SAMPLE]:
            try:
                first = next((text for _, text in read_lines(file)), None)
            except (DataError, OSError):
                return False
            if first is not None:
                return self.is_label(first)
        return False

    def _split_folders(self, folder: Path) -> dict[str, Path]:
        """Return the subfolder of each split, by a word in its name, if it holds labels."""
        try:
            subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        except OSError:  # a folder that cannot be opened: the reader that is chosen reports it
            return {}
        words = {path: re.split(r"[^a-z0-9]+", path.name.lower()) for path in subfolders}
        found = {}
        for split, names in SPLIT_NAMES.items():
            named = (path for path in subfolders if not set(names).isdisjoint(words[path]))
            if (first := next((path for path in named if self._labels_of(path) is not None), None)) is not None:
                found[split] = first
        return found

    def _image_places(self, labels: Path) -> Sequence[Path]:
        """Return the folders of the images: those next to the labels, or else next to the folder above."""
        for above in labels.absolute().parents[:2]:
            if places := [above / name for name in self.image_folders if (above / name).is_dir()]:
                return places
        return [labels.parent / self.image_folders[0], labels]


def _read_file(file: Path, finder: VocImageFinder, builder: DatasetBuilder, parse_line: ParseLine) -> None:
    """Add the image of one label file to the builder. If it is invalid, add a fault."""
    try:
        lines = list(read_lines(file))
    except DataError as error:
        builder.add_fault(file, "", str(error).removeprefix(f"{file}: "), SKIP_IMAGE)
        return
    try:
        found = finder.find(file, ())
    except AmbiguousImageError as error:
        builder.add_fault(file, "", str(error), AMBIGUOUS_ADVICE)
        builder.objects_without_image += len(lines)
        return
    name = finder.own_path(file).as_posix()
    if (path := builder.add_found_image(found, name, file=file, where="", objects=len(lines))) is None:
        return
    try:
        image = AnnotatedImage(path, *read_size(path))
    except ImageError as error:
        what = str(error).removeprefix(f"{path}: ")
        builder.add_image_fault(path, what, file=path, where="", objects=len(lines))
        return
    builder.images.append(image)
    for number, text in lines:
        result = parse_line(text, number, image, builder.selection)
        builder.add_object(image, result, file=file, where=f"line {number}")
