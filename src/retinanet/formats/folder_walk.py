"""List the files below a folder: the one search that readers, `predict` and globs share."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

HIDDEN: Final = "hidden files and folders"
REPEATED: Final = "links to files and folders that are read already"
BROKEN: Final = "links that lead nowhere"
UNREADABLE: Final = "folders that cannot be opened"
OTHER_KIND: Final = "files of other kinds"
_COPIES: Final = frozenset(("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"))
"""Folders in which macOS, Synology and Windows keep thumbnails and deleted files."""
_MAX_EXAMPLES: Final = 3


def comparable(name: str) -> str:
    """Return a name in one Unicode form (NFC) and one case, because file systems and tools store both differently."""
    return unicodedata.normalize("NFC", name).casefold()


@dataclass(slots=True)
class LeftOut:
    """Files and folders that a search left out, by reason: `HIDDEN`, `REPEATED`, `BROKEN`, ..."""

    paths: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        """Add a path that was left out."""
        self.paths.setdefault(reason, []).append(path)

    def update(self, other: LeftOut) -> None:
        """Add the paths of another search."""
        for reason, paths in other.paths.items():
            self.paths.setdefault(reason, []).extend(paths)

    def sentences(self, *, expected_suffixes: Collection[str] = ()) -> list[str]:
        """Return one sentence per reason, with the number of paths and examples.

        Args:
            expected_suffixes: suffixes of other files that belong to the folder and are not reported.
        """
        sentences = []
        for reason, paths in self.paths.items():
            counted = [p for p in paths if reason != OTHER_KIND or p.suffix.lower() not in expected_suffixes]
            if counted:
                sentences.append(f"not read, {reason}: {len(counted):,} ({_examples(counted, reason)})")
        return sentences


def _examples(paths: Sequence[Path], reason: str) -> str:
    if reason == OTHER_KIND:
        counts = Counter(path.suffix.lower() or "no suffix" for path in paths)
        return ", ".join(f"{suffix}: {count:,}" for suffix, count in sorted(counts.items()))
    names = [str(path) for path in paths[:_MAX_EXAMPLES]]
    return ", ".join([*names, "..."] if len(paths) > _MAX_EXAMPLES else names)


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """Files below a folder with certain suffixes, sorted, and what the search left out."""

    files: list[Path]
    left_out: LeftOut


def walk(folder: Path, suffixes: Collection[str]) -> FolderFiles:
    """Return the files in a folder and its subfolders, each real file once.

    Links to files and folders are followed after everything else, so that a file keeps its own path if a link also
    leads to it. A link to a folder that was searched, or that contains `folder`, is left out: loops end. Hidden files
    and folders (.ipynb_checkpoints, ._a.jpg, __MACOSX) are left out.

    Args:
        folder: folder to search.
        suffixes: suffixes of the files, in lower case.
    """
    top = os.path.realpath(folder)
    found: dict[str, Path] = {}
    left_out = LeftOut()
    visited: set[str] = set()
    folders, links = deque([(folder, top)]), deque[Path]()
    while folders or links:
        if not folders:
            _follow(links.popleft(), top, suffixes, visited, found, folders, left_out)
            continue
        place, real = folders.popleft()
        if real in visited:
            continue
        visited.add(real)
        for entry in _entries(place, left_out):
            path, is_wanted = place / entry.name, os.path.splitext(entry.name)[1].lower() in suffixes  # noqa: PTH122
            if entry.name.startswith(".") or entry.name in _COPIES:
                if is_wanted or entry.is_dir(follow_symlinks=False):
                    left_out.add(HIDDEN, path)
            elif entry.is_symlink():
                links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append((path, os.path.join(real, entry.name)))  # noqa: PTH118 - paths as texts are faster
            elif entry.is_file(follow_symlinks=False):
                if is_wanted:
                    found[os.path.join(real, entry.name)] = path  # noqa: PTH118
                else:
                    left_out.add(OTHER_KIND, path)
    return FolderFiles(sorted(found.values()), left_out)


def listed_files(folder: str, suffixes: Collection[str]) -> list[str]:
    """Return the files directly in a folder with certain suffixes, sorted, without hidden files."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.path
                for entry in entries
                if os.path.splitext(entry.name)[1].lower() in suffixes  # noqa: PTH122
                and not entry.name.startswith(".")
                and entry.is_file()
            )
    except OSError:
        return []


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Return the files directly in a folder with a suffix, sorted, without hidden files."""
    return [folder / Path(path).name for path in listed_files(str(folder), {suffix})]


def _follow(
    link: Path,
    top: str,
    suffixes: Collection[str],
    visited: set[str],
    found: dict[str, Path],
    folders: deque[tuple[Path, str]],
    left_out: LeftOut,
) -> None:
    """Add the target of a link to the folders or files, or the link to the paths that are left out."""
    real = os.path.realpath(link)
    if os.path.isdir(real):  # noqa: PTH112
        if real in visited or Path(top).is_relative_to(real):
            left_out.add(REPEATED, link)
        else:
            folders.append((link, real))
    elif link.suffix.lower() not in suffixes:
        left_out.add(OTHER_KIND if os.path.isfile(real) else BROKEN, link)  # noqa: PTH113
    elif not os.path.isfile(real):  # noqa: PTH113
        left_out.add(BROKEN, link)
    elif real in found:
        left_out.add(REPEATED, link)
    else:
        found[real] = link


def _entries(folder: Path, left_out: LeftOut) -> Iterable[os.DirEntry[str]]:
    """Return the entries of a folder, sorted. A folder that disappears during the search has none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError:
        left_out.add(UNREADABLE, folder)
        return ()
