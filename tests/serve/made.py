"""Detections of the API with rounded boxes."""

from __future__ import annotations

from typing import Any


def rounded(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**d, "box": [round(v, 2) for v in d["box"]]} for d in found]
