"""The base class of assigners, the rules that make anchors positive, negative or ignored.

A custom assigner is a subclass of `Assigner` in any importable module, named by `--assigner package.module:Class`. Its
constructor gets each option of `MatchConfig` that it declares as a keyword parameter, for example `positive_iou`. Every
other parameter needs a default.

Shape suffixes: A anchors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from retinanet.config import ASSIGNERS, MatchConfig
from retinanet.plugins import find_class, make_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import AnchorTargets, HeadOutputs, Target


class Assigner(ABC):
    """Base class of assigners, the rules that make anchors positive, negative or ignored."""

    @abstractmethod
    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor of every image, without predictions.

        `retinanet check` measures anchor coverage by this method, without a network.

        Args:
            anchors_A4: anchors, xyxy, input pixels.
            targets: ground truth of each image. No anchor may be positive for a crowd region.
            anchors_per_level: number of anchors of each feature level, finest first.
        """

    def assign(self, outputs: HeadOutputs, targets: Sequence[Target]) -> AnchorTargets:
        """Return the target of every anchor for the outputs of a network. Training calls this method.

        The base class passes the anchors to `__call__`. An assigner that depends on the predictions overrides this
        method. No gradient may flow through the assignment.

        Args:
            outputs: outputs of the network for a batch, with the anchors.
            targets: ground truth of each image. No anchor may be positive for a crowd region.
        """
        return self(outputs.anchors_A4, targets, anchors_per_level=outputs.anchors_per_level)


def make_assigner(config: MatchConfig) -> Assigner:
    """Return the assigner that a config names. Raises `ConfigError` if it cannot be imported or constructed."""
    assigner: Assigner = make_part("assigner", find_class("assigner", config.assigner, ASSIGNERS, Assigner), config)
    return assigner
