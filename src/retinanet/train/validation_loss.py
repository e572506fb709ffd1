"""The validation loss: losses of single images, collected over the batches and the ranks of an evaluation.

The formula is in `retinanet.losses.detection`: the loss of all validation images as one batch.
Shape suffix: N images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from retinanet.losses.detection import ImageLosses

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retinanet.losses import DetectionLoss

VALIDATION_LOSSES: Final = ("val_loss", "val_classification_loss", "val_box_loss")
"""Names of the losses in metrics.csv and in the loggers."""
ImageRow = tuple[int, float, float, int]
"""Index of an image, its classification loss, its box loss and its number of positive anchors."""


class CollectedLosses:
    """Losses of the images that one rank evaluates. They stay on the device until `rows` reads them."""

    def __init__(self) -> None:
        self._indices: list[int] = []
        self._losses: list[ImageLosses] = []

    def add(self, indices: Sequence[int], losses: ImageLosses) -> None:
        """Add the losses of a batch.

        Args:
            indices: index of each image in the dataset.
            losses: losses of the images, in the same order.
        """
        self._indices += indices
        self._losses.append(losses)

    def rows(self) -> list[ImageRow]:
        """Return the losses of each image as plain numbers, which can be sent to other ranks."""
        if not self._losses:
            return []
        columns = (
            torch.cat([getattr(losses, name) for losses in self._losses]).cpu().tolist()
            for name in ("classification_N", "box_N", "positives_N")
        )
        return list(zip(self._indices, *columns, strict=True))


def validation_losses(rows: Iterable[ImageRow], loss: DetectionLoss) -> dict[str, float]:
    """Return the losses over all images, by their names in metrics.csv.

    Args:
        rows: losses of the images of all ranks. An image that several ranks have evaluated counts once. The order of
            the rows has no effect.
        loss: loss of the training run, which normalises the sums.
    """
    of_image = sorted({index: row for index, *row in rows}.items())
    classification, box, positives = zip(*(row for _, row in of_image), strict=True)
    images = ImageLosses(
        classification_N=torch.tensor(classification, dtype=torch.float64),
        box_N=torch.tensor(box, dtype=torch.float64),
        positives_N=torch.tensor(positives),
    )
    losses = loss.over_dataset(images)
    return dict(zip(VALIDATION_LOSSES, map(float, (losses.total, losses.classification, losses.box)), strict=True))
