"""Write files atomically, check paths before they are used, and write paths as valid Unicode text."""

from __future__ import annotations

import codecs
import hashlib
import os
import pickle
import re
import tempfile
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote
from urllib.request import url2pathname

from retinanet.errors import UserError, did_you_mean
from retinanet.file_kinds import START_BYTES, recognise_content

if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT: Final = Path("-")
"""The path that stands for standard output, as in `--json -`."""
MAX_NAME_BYTES: Final = 255
"""Longest file name, in bytes, of most file systems."""
ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?=/)(?://(?P<host>[^/]*))?(?P<place>.*)", re.DOTALL)
"""Address such as file:///a.jpg, s3://bucket/a.jpg, or file:/a.jpg, because pathlib removes the second slash.

A scheme has two or more letters: C:/a.jpg is a Windows path.
"""


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


def user_path(name: str | PurePath) -> Path:
    """Return a path with a leading `~` or `~user` replaced by the home folder, as a shell does.

    A shell leaves `~` in `--output=~/runs`, and text from Python and YAML does not pass through a shell.
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111 - pathlib's function raises for an unknown user


def local_path(name: str) -> Path:
    """Return the path that a name stands for: a path, or an address of a file on this machine (file://).

    Raises:
        UserError: the name is an address of another machine, such as http:// or rtsp://.
    """
    address = ADDRESS.match(name)
    if address is None or os.path.exists(name):  # noqa: PTH110 - False for a name that no file system accepts
        return user_path(name)
    scheme, host, place = address["scheme"].lower(), address["host"] or "", address["place"]
    if scheme == "file" and host in {"", "localhost"}:
        return Path(url2pathname(place))
    raise UserError(
        f"an address ({scheme}) is no file on this machine: {name}. Download the file, or save the frames "
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
        raise UserError(f"there is no folder {parent}, in which {path.name} was expected")
    near = did_you_mean(path.name, [entry.name for entry in parent.iterdir()])
    raise UserError(f"no such file or folder: {path}{near}")


def missing_file(path: Path, what: str) -> str:
    """Return a message for a path at which no file exists: nothing, or a folder. `what` names the file, for example
    "checkpoint". In a folder of a training run, the message names best.ckpt.
    """
    if not is_folder(path):
        return f"{what} {path} does not exist"
    best = path / "best.ckpt"
    advice = f"Give {best}" if best.is_file() else "Give a file"
    return f"{what}: expected a file, found the folder {path}. {advice}"


def explain_unreadable(path: Path, error: Exception) -> str:
    """Return why `torch.load` refused a file and what to do, without PyTorch's advice to run the code in the file."""
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    if start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        size = path.stat().st_size
        return f"the file is not complete: it ends after {size:,} bytes. Copy or download it again"
    if not start.startswith((b"PK", b"\x80")):  # a ZIP archive or a pickle
        found = recognise_content(start)
        if path.suffix != ".safetensors" or found:
            return f"expected a file of torch.save or safetensors, found {found or 'another kind of file'}"
    text = str(error)
    if "TorchScript" in text:
        return "expected tensors and plain values, found a TorchScript archive: save model.state_dict() with torch.save"
    if isinstance(error, pickle.UnpicklingError):
        if refused := re.search(r"GLOBAL (\S+)", text):
            return (
                f"expected tensors and plain values, found the object {refused[1]}, whose code could do anything: save "
                "model.state_dict() alone with torch.save"
            )
        if "weights_only" in text or not text:  # PyTorch's own words
            return "expected a file of torch.save, found a damaged file"
    return text


def _percent(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode bytes that are not UTF-8 as %XX: an error handler of `codecs`."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("retinanet.percent", _percent)


def valid_text(text: str) -> str:
    """Return a text that every encoder of UTF-8 accepts. Each byte that was not UTF-8 in a file name becomes %XX.

    Python represents such bytes by unpaired surrogates (PEP 383). `urllib.parse.unquote(text,
    errors="surrogateescape")` returns the name on the disk.
    """
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # an unpaired half of a UTF-16 character, in a name on Windows
        encoded = text.encode("utf-8", "surrogatepass")
    return encoded.decode("utf-8", "retinanet.percent")


def path_text(path: PurePath) -> str:
    """Return a path for an output file: forward slashes; control characters and bytes that are not UTF-8 as %XX.

    XML cannot hold control characters, and a line feed would end the line of a list of files.
    """
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", valid_text(path.as_posix()))


def path_from_text(text: str) -> Path:
    """Return the path that `path_text` wrote: with its original bytes, if no file has the name as written."""
    path = Path(text)
    if "%" not in text or is_file(path):
        return path
    original = Path(unquote(text, errors="surrogateescape"))
    return original if is_file(original) else path


def text_encoding(start: bytes) -> str:
    """Return the encoding of a text file that starts with the given bytes: UTF-16 after its byte order mark, or UTF-8.

    Windows PowerShell 5 writes UTF-16 by default. `utf-8-sig` reads UTF-8 with and without a byte order mark.
    """
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def read_text(path: Path) -> str:
    """Return the content of a text file that the user wrote, without a byte order mark, see `text_encoding`.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8, or not UTF-16 after the byte order mark of UTF-16.
    """
    data = path.read_bytes()
    return data.decode(text_encoding(data))


def require_writable(*paths: Path | None) -> None:
    """Raise `UserError` if no file can be written at one of the paths. A missing folder is created.

    Long work calls this function before it starts, so that its results are not lost. None and `STDOUT` need no file.
    """
    for path in paths:
        if path is None or path == STDOUT:
            continue
        if path.is_dir():
            raise UserError(f"the file to write is a folder: {path}. Give a file in the folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise UserError(f"cannot write ({error.strerror}): {path}. Give another path") from error


def content_of(path: Path) -> str:
    """Return what a file contains, in words for an error message; an empty text if it is not recognised."""
    try:
        with path.open("rb") as file:
            return recognise_content(file.read(START_BYTES))
    except OSError:
        return ""


def partial_path(path: Path) -> Path:
    """Return the temporary path under which a file is written: NAME.partial, in the folder of the file.

    If NAME.partial is longer than 255 bytes, the limit of most file systems, a hash replaces NAME.
    """
    name = path.name + ".partial"
    if len(encoded := name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        name = hashlib.sha256(encoded).hexdigest()[:32] + ".partial"
    return path.with_name(name)


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
    """Write a file atomically; text is encoded as UTF-8, see `valid_text`. A missing folder is created.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(valid_text(content).encode() if isinstance(content, str) else content)
