"""Find the image of each .xml file of a Pascal VOC dataset."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET  # only for the types: parse.py parses

from retinanet.files import is_file
from retinanet.formats.image_files import AmbiguousImageError, FileIndex, FoundImage, ImageFinder
from retinanet.images import IMAGE_SUFFIXES


class VocImageFinder:
    """Finds the image of an .xml file: first by the path of the .xml file, then by the path written inside.

    The written name is often outdated after files were renamed, and may then lead to another existing image.
    """

    def __init__(self, places: Sequence[Path], annotations: Path) -> None:
        self.places = [place for place in places if place.is_dir()] or list(places[:1])
        self.annotations = annotations
        self.by_stem = FileIndex(self.places, IMAGE_SUFFIXES, by_stem=True)
        self.by_name = ImageFinder(self.places, FileIndex(self.places, IMAGE_SUFFIXES))

    def own_path(self, file: Path) -> Path:
        """Return the path of an .xml file below the annotations, without its suffix."""
        return file.relative_to(self.annotations).with_suffix("")

    def find(self, file: Path, written: Sequence[str]) -> FoundImage:
        """Return the image of an .xml file. If it does not exist, return the path where it was expected.

        Args:
            file: .xml file.
            written: paths of the image in the .xml file, most complete first.

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
        return self.by_name.find(written[-1] if written else f"{own.as_posix()}.jpg")


def written_paths(root: ET.Element) -> list[str]:
    """Return the paths that an .xml file writes for its image, most complete first: <path>, <folder>/<filename>."""
    texts = ((root.findtext(tag) or "").strip().replace("\\", "/") for tag in ("path", "folder", "filename"))
    path, folder, name = texts
    is_same = path.rpartition("/")[2] == name.rpartition("/")[2]  # <path> is often outdated
    return [text for text in (path if is_same else "", f"{folder}/{name}" if folder and name else "", name) if text]
