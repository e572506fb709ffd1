"""Former names of options and JSON fields. A former name still works; a warning names its replacement once.

A former name may be removed in a new major version.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final

OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "calibration_pictures": ("calibration_images",),
    "max_skipped_in_a_row": ("max_skipped_steps",),
    "pictures": ("image_files", "compare_images"),
    "skip_bad": ("skip_invalid",),
}
"""Former name of an option -> its current names. A command uses the first of these names that it has."""

REMOVED_OPTIONS: Final[dict[str, str]] = {
    "max_skipped": "--max-skipped-steps limits the consecutive skipped steps",
}
"""Former name of an option that no longer has an effect -> the option to use instead."""

JSON_FIELDS: Final = {
    "images": "pictures",
    "empty_images": "empty_pictures",
    "anchors_per_image": "anchors_per_picture",
    "objects_per_image": "objects_per_picture",
    "effective_negatives_per_image": "effective_negatives_per_picture",
}
"""Field of a JSON document -> its former name."""

FINDING_KINDS: Final = {
    "boxes of another size of image": "boxes of another size of picture",
    "duplicate images": "duplicate pictures",
    "empty images": "empty pictures",
    "images in both sets": "pictures in both sets",
    "whole image": "whole picture",
}
"""Kind of a finding -> its former name, which JSON documents keep because programs compare it."""


class FormerNameWarning(FutureWarning):
    """Warning of a former name. Python shows a `FutureWarning` to all users, unlike a `DeprecationWarning`."""


def current_options(values: Mapping[str, Any], known: Collection[str], *, warn: bool = True) -> dict[str, Any]:
    """Return options by their current names. Names without a replacement stay, also unknown ones.

    Args:
        values: options by name, with underscores.
        known: names of the options of the command.
        warn: whether to warn of former names; False for files written by the program, such as checkpoints.
    """
    current: dict[str, Any] = {}
    for name, value in values.items():
        new = name if name in known else next((new for new in OPTIONS.get(name, ()) if new in known), name)
        removed = new not in known and name in REMOVED_OPTIONS
        if warn and removed:
            _warn(f"option {name!r} no longer has an effect: {REMOVED_OPTIONS[name]}")
        elif warn and new != name:
            _warn(f"option {name!r} is now called {new!r}; the former name will be removed in a later release")
        if not removed and not (new != name and new in values):
            current[new] = value
    return current


def with_former_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return named options with each renamed option under its former name too, for programs that read that name."""
    former = {name: options[new] for name, names in OPTIONS.items() for new in names if new in options}
    return {**options, **former}


def with_former_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON document with each renamed field also under its former name, for programs that read that name."""
    former = {JSON_FIELDS[name]: value for name, value in document.items() if name in JSON_FIELDS}
    return {**document, **former}


@cache
def _warn(text: str) -> None:
    warnings.warn(text, FormerNameWarning, stacklevel=4)
