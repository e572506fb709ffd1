"""One thing that a user should know of data or model: what was seen, why that probably is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A finding of `check`.

    Args:
        kind: a short name, the same for findings of one kind, such as "duplicate images".
        severity: error: it will not work; warning: it will work badly; note: good to know.
        what: what was seen, with numbers.
        cause: what that means, or where it probably comes from.
        advice: what to do.
        where: files, objects or classes that it is about.
    """

    kind: str
    severity: Severity
    what: str
    cause: str
    advice: str
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = f" ({', '.join(self.where[:5])}{', ...' if len(self.where) > 5 else ''})" if self.where else ""
        return f"{self.severity}: {self.what}{shown}. {self.cause}. {self.advice}."
