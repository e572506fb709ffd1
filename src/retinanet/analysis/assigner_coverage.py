"""Compare the assigners before training: share of objects with a positive anchor, and positive anchors per object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.coverage import MOST_IMAGES, Coverage, coverage
from retinanet.config import ASSIGNERS, ImageConfig, MatchConfig, ModelConfig

if TYPE_CHECKING:
    from retinanet.data import DetectionData

NOTE: Final = (
    "task_aligned depends on the predictions. Before training, all scores count as equal, and the anchors are the "
    "predicted boxes."
)
"""Explanation of the numbers of `task_aligned`, for tables of assigners."""


@dataclass(frozen=True, kw_only=True)
class AssignerCoverage:
    """Coverage of the objects by the positive anchors of one assigner.

    Args:
        assigner: name of the assigner.
        objects: number of objects, without crowd regions.
        unreached: number of objects without a positive anchor.
        median_positives: median number of positive anchors per object; 0 without objects.
        min_positives: smallest number of positive anchors of an object; 0 without objects.
    """

    assigner: str
    objects: int
    unreached: int
    median_positives: float
    min_positives: int

    @classmethod
    def of(cls, assigner: str, measured: Coverage) -> AssignerCoverage:
        """Return the numbers of a measured coverage."""
        positives_O = measured.positives_O
        return cls(
            assigner=assigner,
            objects=measured.objects,
            unreached=measured.unreached,
            median_positives=float(np.median(positives_O)) if measured.objects else 0.0,
            min_positives=int(positives_O.min()) if measured.objects else 0,
        )

    @property
    def share(self) -> float:
        """Share of the objects with a positive anchor; 1 if the data has no object."""
        return 1 - self.unreached / self.objects if self.objects else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        return {
            "assigner": self.assigner,
            "objects": self.objects,
            "unreached": self.unreached,
            "share": self.share,
            "median_positives": self.median_positives,
            "min_positives": self.min_positives,
        }


def assigner_coverages(
    data: DetectionData,
    measured: Coverage,
    *,
    model_config: ModelConfig,
    match_config: MatchConfig,
    image_config: ImageConfig,
) -> tuple[AssignerCoverage, ...]:
    """Return the coverage of each built-in assigner and of the configured assigner, with the configured options.

    An assigner that depends on predictions is measured without them. For `task_aligned`, all scores are equal then, and
    the predicted boxes are the anchors, as in a new network.

    Args:
        data: images and objects.
        measured: coverage by the configured assigner, on the sample of `coverage(images=MOST_IMAGES)`.
        model_config: anchors and levels.
        match_config: the configured assigner and its options.
        image_config: the size of the network's input.
    """
    settings: dict[str, Any] = {"model_config": model_config, "image_config": image_config, "images": MOST_IMAGES}
    rows = []
    for name in dict.fromkeys([*ASSIGNERS, match_config.assigner]):
        own = name == match_config.assigner
        found = measured if own else coverage(data, match_config=replace(match_config, assigner=name), **settings)
        rows.append(AssignerCoverage.of(name, found))
    return tuple(rows)
