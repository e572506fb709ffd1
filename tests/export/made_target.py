"""An export target that a user could write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinanet.export.base_target import ExportTarget
from retinanet.export.parity import Difference


class TextTarget(ExportTarget):
    """A text file with only the description."""

    suffix = ".txt"
    title = "text reader"
    box_difference = 0.0

    def write(self, source: Any, about: Any, path: Path) -> None:
        path.write_text(about.to_json())

    def compare(self, loaded: Any, about: Any, path: Path, images: Sequence[Path]) -> list[Difference]:
        return [
            Difference(
                image_size=64, batch_size=1, images=len(images), compared=5, boxes=self.box_difference, scores=0.0
            )
        ]
