"""Annotations that the options of several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter, Token

Flat = Parameter(name="*")
"""The fields of a config become the command's flags."""
OutputFolder = Annotated[Path, Parameter(alias="-o", help="Folder for what is written.")]


def token_text(token: Token) -> str:
    """Return a value as it was written, on the command line or in a file."""
    return str(
        token.implicit_value if token.value == "" and token.implicit_value is not cyclopts.UNSET else token.value
    )


def _batch_size(_: Any, tokens: Sequence[Token]) -> int:
    """Read `auto` as 0."""
    value = token_text(tokens[-1])
    return 0 if value == "auto" else int(value)


BatchSize = Annotated[int, Parameter(converter=_batch_size)]

Callbacks = Annotated[tuple[str, ...], Parameter(alias="--callback")]
