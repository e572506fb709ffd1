"""A finding about data or model: what was observed, the probable cause, and what to do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, Literal

from retinanet.former_names import FINDING_KINDS
from retinanet.parse import printable

MAX_PLACE: Final = 200
"""Largest number of characters of one place in a message: a group of nearly identical images may have thousands."""
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A finding of `retinanet check`.

    Args:
        kind: short name that all findings of one kind share, such as "duplicate images".
        severity: "error" if training or evaluation cannot work, "warning" if it works badly, "note" for information.
        what: observation with numbers, without a full stop.
        cause: probable cause or consequence, without a full stop.
        advice: what the user should do, without a full stop.
        where: files, objects or classes of the finding.
    """

    kind: str
    severity: Severity
    what: str
    cause: str
    advice: str
    where: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values; `kind` is the stable name for programs, `title` the name in reports."""
        document = {**dataclasses.asdict(self), "kind": FINDING_KINDS.get(self.kind, self.kind), "title": self.kind}
        return {**document, "where": list(self.where)}

    def __str__(self) -> str:
        first = [printable(place, MAX_PLACE) for place in self.where[:5]]
        places = f" ({', '.join([*first, *(['...'] if len(self.where) > 5 else [])])})" if self.where else ""
        return f"{self.severity}: {self.what}{places}. {self.cause}. {self.advice}."
