"""Find the images that annotations name, on another machine than the one that wrote the names."""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote

from retinanet import images as image_io
from retinanet.files import ADDRESS, AllowedFolders, is_file
from retinanet.formats.folder_walk import LeftOut, comparable, walk
from retinanet.formats.text import LARGEST_SIDE, finite_number, read_lines
from retinanet.images import IMAGE_SUFFIXES
from retinanet.parse import shorten

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

OUTSIDE_ADVICE: Final = (
    "Move the image there, give its folder with --images, or give --allow-outside if you trust the annotation file"
)
"""Advice for an image outside the allowed folders."""
AMBIGUOUS_ADVICE: Final = (
    "Give the folder that the written path starts in with --images, write more of the path into the annotations, or "
    "leave the image out with --skip-invalid"
)
"""Advice for a name that several images match."""
MISSING_ADVICE: Final = "Put the image at this path, give its folder with --images, or leave it out with --skip-invalid"
"""Advice for an image that was not found, without `--images`."""
DATA_SUFFIXES: Final = frozenset(
    (".txt", ".xml", ".json", ".yaml", ".yml", ".csv", ".names", ".data", ".md", ".cache", ".jsonl")
)
"""Suffixes of files that belong beside the images of a dataset."""
_UPLOAD_PREFIX: Final = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""Prefix that Label Studio adds to the name of an uploaded image."""
_ANNOTATION_FOLDERS: Final = frozenset(("annotations", "annotation", "annots", "anns", "ann", "labels", "json", "csv"))
"""Names of folders for annotation files, whose images lie in the folder above."""


def advice_for_missing_image(images: Path | None) -> str:
    """Return the advice for an image that was not found. `images` is the folder of `--images`, if it was given."""
    if images is None:
        return MISSING_ADVICE
    return (
        f"Put the image into {images}, the folder of --images, which was searched with its subfolders, correct its "
        "name in the annotations, or leave it out with --skip-invalid"
    )


class AmbiguousImageError(ValueError):
    """A written name that several images match equally well. The message lists them."""

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        shown = ", ".join(map(str, sorted(paths)[:4])) + (", ..." if len(paths) > 4 else "")
        super().__init__(f"expected one image for {shorten(name)}, found {len(paths)} that match equally: {shown}")


class FoundImage(NamedTuple):
    """The image of a written name."""

    path: Path
    """Path of the image, or the path where it was expected if no image was found."""
    is_whole: bool
    """Whether the whole written path leads to the image, and not only its end."""


def readings(name: str) -> list[str]:
    """Return the paths that a written name can stand for, the literal one first.

    They undo back-slashes (Windows), percent-encoding, addresses (file:///a.jpg, s3://bucket/a.jpg,
    https://host/a.jpg?token=1) and Label Studio's local files (/data/local-files/?d=a.jpg).
    """
    forms = [name]
    if (address := ADDRESS.match(name)) is not None:
        place = address["place"] or address["host"]  # file://a.jpg has one slash too few
        forms.append(place if address["scheme"].lower() == "file" else place.lstrip("/"))
    for form in tuple(forms):
        path, mark, query = form.partition("?")
        if mark:
            forms += [*parse_qs(query).get("d", ()), path]
        forms.append(path.partition("#")[0])
    forms += [form.replace("\\", "/") for form in forms]
    forms += [unquote(form, errors="surrogateescape") for form in forms]
    return [form for form in dict.fromkeys(forms) if form.strip("/.")]


def without_upload_prefix(name: str) -> str:
    """Return a path without the prefix that Label Studio adds to the name of an uploaded image."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{_UPLOAD_PREFIX.sub('', last)}"


def _parts(path: str | Path) -> list[str]:
    """Return the comparable parts of a path, without `.`, `..` and the root."""
    text = path.as_posix() if isinstance(path, Path) else path
    return [comparable(part) for part in text.split("/") if part not in {"", ".", ".."}]


class FileIndex:
    """The files below some folders. They are searched once, at the first use.

    Args:
        folders: folders to search.
        suffixes: suffixes of the files, in lower case.
        by_stem: whether files are found by their stem, that is without their suffix.

    Attributes:
        left_out: what the search left out.
    """

    def __init__(self, folders: Sequence[Path], suffixes: Collection[str], *, by_stem: bool = False) -> None:
        self.folders = tuple(folders)
        self.suffixes = suffixes
        self.by_stem = by_stem
        self.left_out = LeftOut()

    @classmethod
    def of(cls, files: Sequence[Path]) -> FileIndex:
        """Return an index of the given files. They need not exist."""
        index = cls((), ())
        index.files = list(files)
        return index

    @cached_property
    def files(self) -> list[Path]:
        """All files."""
        found: dict[Path, None] = {}
        for folder in self.folders:
            if folder.is_dir():
                result = walk(folder, self.suffixes)
                found.update(dict.fromkeys(result.files))
                self.left_out.update(result.left_out)
        return list(found)

    @cached_property
    def _by_last_part(self) -> dict[str, list[tuple[Path, list[str]]]]:
        """Each file with its comparable parts, by the last part."""
        table: dict[str, list[tuple[Path, list[str]]]] = {}
        for path in self.files:
            parts = _parts(path.with_suffix("") if self.by_stem else path)
            table.setdefault(parts[-1], []).append((path, parts))
        return table

    @cached_property
    def _by_path(self) -> dict[str, Path]:
        return {comparable(str(path)): path for path in self.files}

    def at(self, path: Path) -> Path | None:
        """Return the file at a path, whose name may be written in another Unicode form or case."""
        return self._by_path.get(comparable(str(path)))

    @cached_property
    def _by_upload_name(self) -> dict[str, list[Path]]:
        table: dict[str, list[Path]] = {}
        for path in self.files:
            table.setdefault(_upload_name(path.name), []).append(path)
        return table

    def uploaded_as(self, name: str) -> list[Path]:
        """Return the files whose name becomes `name` when they are uploaded to Label Studio."""
        return self._by_upload_name.get(comparable(name), [])

    def best_matches(self, written: str) -> tuple[int, list[Path]]:
        """Return the number of parts in the longest matching end of a written path, and the files that match it."""
        parts = _parts(written)
        same_name = self._by_last_part.get(parts[-1], []) if parts else []
        if not same_name:
            return 0, []
        counts = {path: _count_equal(parts, own_parts) for path, own_parts in same_name}
        best = max(counts.values())
        found = [path for path, count in counts.items() if count == best]
        last = written.rpartition("/")[2]
        return best, [p for p in found if (p.stem if self.by_stem else p.name) == last] or found


def _upload_name(name: str) -> str:
    """Return the comparable name that Label Studio gives to an upload: Django's `get_valid_filename`."""
    return re.sub(r"[^-\w.]", "", comparable(name).strip().replace(" ", "_"))


def _count_equal(parts: Sequence[str], others: Sequence[str]) -> int:
    """Return the number of equal parts at the end of two paths."""
    count = 0
    for part, other in zip(reversed(parts), reversed(others), strict=False):
        if part != other:
            break
        count += 1
    return count


class ImageFinder:
    """Finds the image that an annotation file names.

    1. The path as written, if it is absolute or starts in one of the folders.
    2. Else the image below the folders that matches the longest end of the path: cam1/a.jpg of
       C:\\data\\cam1\\a.jpg. A path whose name alone matches must match one image only.

    All names are tried as written and in their other readings, see `readings`. Unicode forms and cases are equal.

    Args:
        folders: folders that a relative path may start in, most likely first.
        index: all images that may be meant; None for those below `folders`.
    """

    def __init__(self, folders: Sequence[Path], index: FileIndex | None = None) -> None:
        self.folders = [folder for folder in folders if folder.is_dir()] or list(folders[:1])
        self.index = FileIndex(self.folders, IMAGE_SUFFIXES) if index is None else index

    @classmethod
    def for_file(cls, file: Path, images: Path | None) -> ImageFinder:
        """Return a finder for the images of an annotation file: below `images`, or in the folders around the file.

        The folders around annotations/instances_val.json are annotations/, annotations/images/, images/, val/,
        images/val/, annotations/val/ and the folder above.
        """
        if images is not None:
            return cls([images])
        beside, above, split = file.parent, file.absolute().parent.parent, file.stem.split("_")[-1]
        around = [above / "images", above / split, above / "images" / split, beside / split]
        below = [beside, *(folder for folder in around if folder.is_dir())]
        if beside.absolute().name.lower() in _ANNOTATION_FOLDERS:
            below.append(above)
        return cls([beside, beside / "images", *around, above], FileIndex(below, IMAGE_SUFFIXES))

    def find(self, name: str, *, near: Path | None = None) -> FoundImage:
        """Return the image of a written name. If no image is found, return the path where it was expected.

        Args:
            name: name in the annotations.
            near: folder whose image is taken if several images match.

        Raises:
            AmbiguousImageError: several images match.
        """
        literal = readings(name)
        stripped = [text for text in map(without_upload_prefix, literal) if text not in literal]
        for texts, is_whole in ((literal, True), (stripped, False)):
            for path in self._places(texts):
                if is_file(path):
                    return FoundImage(path, is_whole)
        for texts, is_whole in ((literal, True), (stripped, False)):
            for place in self._places(texts):
                if (found_path := self.index.at(place)) is not None:
                    return FoundImage(found_path, is_whole and _is_same(found_path, place.as_posix()))
            if (found := self._longest_end(name, texts, near)) is not None:
                return found
        uploads = list(dict.fromkeys(p for t in stripped for p in self.index.uploaded_as(t.rpartition("/")[2])))
        if len(uploads) > 1:
            raise AmbiguousImageError(name, uploads)
        if uploads:
            return FoundImage(uploads[0], is_whole=False)
        return FoundImage(self.folders[0] / name.replace("\\", "/").lstrip("/"), is_whole=True)

    def _places(self, texts: Sequence[str]) -> Iterator[Path]:
        for text in texts:
            if text.startswith("/") or Path(text).is_absolute():
                yield Path(text)
            for folder in self.folders:
                yield folder / text.lstrip("/")

    def _longest_end(self, name: str, texts: Sequence[str], near: Path | None) -> FoundImage | None:
        matches = [(*self.index.best_matches(text), text) for text in texts]
        best = max((count for count, _, _ in matches), default=0)
        if not best:
            return None
        paths = list(dict.fromkeys(path for count, found, _ in matches if count == best for path in found))
        whole = [text for count, _, text in matches if count == best == len(_parts(text))]
        if len(paths) > 1 and near is not None:
            paths = [path for path in paths if path.parent == near] or paths
        if len(paths) > 1 and best > 1:  # the path that starts directly in a folder
            direct = [p for p in paths if any(len(_parts(p)) - len(_parts(f)) == best for f in self.folders)]
            paths = direct if len(direct) == 1 else paths
        if len(paths) > 1:
            raise AmbiguousImageError(name, paths)
        return FoundImage(paths[0], any(_is_same(paths[0], text) for text in whole))


def _is_same(path: Path, end: str) -> bool:
    """Return whether a path ends with a written path, in any Unicode form, but in the same case."""
    parts = [part for part in unicodedata.normalize("NFC", end).split("/") if part not in {"", ".", ".."}]
    return unicodedata.normalize("NFC", path.as_posix()).endswith("/".join(parts))


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and its subfolders, sorted, each real file once."""
    return walk(folder, IMAGE_SUFFIXES).files


def is_list_of_images(path: Path) -> bool:
    """Return whether the first line of a text file is the path of an image that includes a folder."""
    first = next((text for _, text in read_lines(path)), "")
    return Path(first).suffix.lower() in IMAGE_SUFFIXES and ("/" in first or "\\" in first)


def image_size(path: Path, width: Any, height: Any) -> tuple[int, int]:
    """Return the annotated width and height in pixels, or the size of the image file if they are invalid.

    Raises:
        ImageError: the annotated size is invalid and the image file cannot be read.
    """
    w, h = finite_number(width), finite_number(height)
    if w is not None and h is not None and 1 <= w <= LARGEST_SIDE and 1 <= h <= LARGEST_SIDE:
        return int(w), int(h)
    return image_io.read_size(path)


def outside_fault(allowed: AllowedFolders, path: Path) -> str | None:
    """Return the fault of an image outside the allowed folders, or None if the image lies inside."""
    if allowed.contains(path):
        return None
    return f"expected an image below {allowed.folders[0]}, found {shorten(str(path))[1:-1]}, which is outside of it"
