"""Write files atomically, and check paths before they are used."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.request import url2pathname

from retinanet.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator


_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?=/)(?://(?P<host>[^/]*))?(?P<place>.*)", re.DOTALL)
"""An address with a scheme of two or more letters: C:/ is a Windows path. pathlib removes its second slash."""


@dataclass(frozen=True, slots=True)
class AllowedFolders:
    """Folders that an annotation file may reach by a relative path with `..`. Its author may be a stranger.

    Three folders are allowed: the folder of the annotation file, the folder above it (annotations/ beside images/), and
    the image folder that the user gives. Absolute paths are always allowed: CSV files and `retinanet split` write them,
    and a reader of the file sees their target. Symbolic links are followed, because the owner of the disk made them.

    Args:
        folders: allowed folders as absolute paths. Empty: any folder is allowed.
    """

    folders: tuple[Path, ...]

    @classmethod
    def around(cls, source: Path, images: Path | None = None, *, allow_outside: bool = False) -> Self:
        """Return the allowed folders of an annotation file, or of a folder of annotation files."""
        if allow_outside:
            return cls(())
        own = _resolve_dots(source if source.is_dir() else source.parent)
        places = [own, own.resolve()]
        above = [place.parent for place in places if place.parent != place.parent.parent]  # never the root
        image_folder = [] if images is None else [_resolve_dots(images)]
        return cls(tuple(dict.fromkeys((*image_folder, *places, *above))))

    def contains(self, path: Path) -> bool:
        """Return whether a path is allowed."""
        if not self.folders or ".." not in path.parts:
            return True
        try:
            place = _resolve_dots(path)
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a name that no file system accepts
            return False
        return any(place.is_relative_to(folder) for folder in self.folders)


def _resolve_dots(path: Path) -> Path:
    """Return an absolute path without `..`. After a symbolic link, `..` is the parent folder of the link's target."""
    absolute = path.absolute()
    if ".." not in absolute.parts:
        return absolute
    here = Path(absolute.anchor)
    for part in absolute.parts[1:]:
        if part != "..":
            here /= part
        else:
            here = (here.resolve() if here.is_symlink() else here).parent
    return here


def is_file(path: Path) -> bool:
    """Return whether a file exists; False for a name that no file system accepts, for which pathlib raises."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Return whether a folder exists; False for a name that no file system accepts, for which pathlib raises."""
    return os.path.isdir(path)  # noqa: PTH112


def local_path(name: str) -> Path:
    """Return the path that a name stands for: a path, or an address of a file on this machine (file://).

    Raises:
        UserError: the name is an address of another machine, such as http:// or rtsp://.
    """
    address = _ADDRESS.match(name)
    if address is None or os.path.exists(name):  # noqa: PTH110 - False for a name that no file system accepts
        return Path(name)
    scheme, host, place = address["scheme"].lower(), address["host"] or "", address["place"]
    if scheme == "file" and host in {"", "localhost"}:
        return Path(url2pathname(place))
    raise UserError(
        f"{name}: expected a file on this machine, found an address ({scheme}). Download the file, or save the frames "
        "of the stream, first"
    )


def existing_path(path: Path) -> Path:
    """Return the path. Raise `UserError` with the nearest name in its folder if nothing exists at the path.

    A path that was made of an address (file:///a.ckpt becomes file:/a.ckpt) is read as by `local_path`.
    """
    path = local_path(str(path))
    if path.exists():
        return path
    parent = path.parent
    if not parent.is_dir():
        raise UserError(f"{path}: there is no folder {parent}")
    near = did_you_mean(path.name, [entry.name for entry in parent.iterdir()])
    raise UserError(f"{path}: no such file or folder{near}")


def partial_path(path: Path) -> Path:
    """Return the temporary path under which a file is written: NAME.partial, in the folder of the file."""
    return path.with_name(path.name + ".partial")


def replace_file(partial: Path, path: Path) -> None:
    """Rename a finished file to its final name after its content is on the disk.

    The file and its folder are flushed, so that the file is complete even after a power failure.
    """
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to. It is renamed to `path` on success and removed on any error.

    A missing folder is created. An existing file keeps its content until the new file is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        yield partial
        replace_file(partial, path)
    except BaseException:
        with suppress(OSError):  # the folder may have become read-only
            partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file atomically; text is encoded as UTF-8. A missing folder is created. Raises `OSError`."""
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
