"""Find the image of each annotation file of a dataset with one file per image, such as Pascal VOC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET  # only for the types: parse.py parses

from retinanet.files import is_file
from retinanet.formats.image_files import AmbiguousImageError, FileIndex, FoundImage, ImageFinder
from retinanet.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from retinanet.formats.builder import DatasetBuilder


class VocImageFinder:
    """Finds the image of an annotation file: first by the path of the file, then by the path written inside.

    The written name is often outdated after files were renamed, and may then lead to another existing image.

    Args:
        places: folders of the images.
        annotations: folder of the annotation files.
        suffix: suffix of a missing image of which no name is written.
    """

    def __init__(self, places: Sequence[Path], annotations: Path, *, suffix: str = ".jpg") -> None:
        self.suffix = suffix
        self.places = [place for place in places if place.is_dir()] or list(places[:1])
        self.annotations = annotations
        self.by_stem = FileIndex(self.places, IMAGE_SUFFIXES, by_stem=True)
        self.by_name = ImageFinder(self.places, FileIndex(self.places, IMAGE_SUFFIXES))

    def own_path(self, file: Path) -> Path:
        """Return the path of an annotation file below the annotations, without its suffix."""
        return file.relative_to(self.annotations).with_suffix("")

    def find(self, file: Path, written: Sequence[str]) -> FoundImage:
        """Return the image of an annotation file. If it does not exist, return the path where it was expected.

        Args:
            file: annotation file.
            written: paths of the image in the annotation file, most complete first.

        Raises:
            AmbiguousImageError: several images match.
        """
        own = self.own_path(file)
        count, paths = self.by_stem.best_matches(own.as_posix())
        suffix = PurePosixPath(written[0]).suffix.lower() if written else ""
        paths = [path for path in paths if path.parent == file.parent] or paths
        paths = [path for path in paths if path.suffix.lower() == suffix] or paths
        if len({path.parent for path in paths}) == 1:
            return FoundImage(paths[0], is_whole=count >= len(own.parts))
        for name in written:
            with suppress(AmbiguousImageError):
                found = self.by_name.find(name)
                if found.path in paths if paths else is_file(found.path):
                    return FoundImage(found.path, is_whole=bool(paths))
        if len(paths) > 1:
            raise AmbiguousImageError(own.as_posix(), paths)
        return self.by_name.find(written[-1] if written else f"{own.as_posix()}{self.suffix}")


def images_without_annotations(
    builder: DatasetBuilder, finder: VocImageFinder, files: Sequence[Path], annotations: Path
) -> Iterator[tuple[Path, Path]]:
    """Yield each image without an annotation file, and the path of the missing file.

    Args:
        builder: builder with the images of all annotation files.
        finder: finder of the images.
        files: all annotation files.
        annotations: folder of the annotation files.
    """
    if not files:
        return
    annotated = {finder.own_path(file) for file in files}
    known = {image.path for image in builder.images} | {fault.file for fault in builder.faults}
    for path in sorted(finder.by_stem.files):
        own = path.relative_to(next(place for place in finder.places if path.is_relative_to(place)))
        # A second image of an annotation file, such as a.png beside a.jpg, is a note of the builder.
        if path not in known and own.with_suffix("") not in annotated:
            yield path, annotations / own.with_suffix(files[0].suffix)


def written_paths(root: ET.Element) -> list[str]:
    """Return the paths that an .xml file writes for its image, most complete first: <path>, <folder>/<filename>."""
    texts = ((root.findtext(tag) or "").strip().replace("\\", "/") for tag in ("path", "folder", "filename"))
    path, folder, name = texts
    is_same = path.rpartition("/")[2] == name.rpartition("/")[2]  # <path> is often outdated
    return [text for text in (path if is_same else "", f"{folder}/{name}" if folder and name else "", name) if text]
