"""Albumentations pipelines as transforms. This module does not import Albumentations: the user passes the pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.errors import ConfigError

if TYPE_CHECKING:
    from retinanet.data.user_transform import TrainingSample

FORMAT: Final = "pascal_voc"
"""Name that Albumentations gives to the box format xyxy, pixels."""


class AlbumentationsTransform:
    """A transform that applies an Albumentations `Compose`.

    `AlbumentationsTransform(A.Compose([...], bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"])))`

    The label field carries the index of each object instead of its class id. The indices of the boxes that
    Albumentations keeps then select the matching class ids and crowd flags.

    Args:
        pipeline: an `albumentations.Compose` whose `bbox_params` have the format pascal_voc and exactly one label
            field.

    Raises:
        ConfigError: a pipeline without such `bbox_params`. It would change the image but not the boxes.
    """

    def __init__(self, pipeline: Any) -> None:
        processor = getattr(pipeline, "processors", {}).get("bboxes")
        fields = list(processor.params.label_fields or ()) if processor is not None else []
        params = f"format {processor.params.format!r} and label_fields {fields}" if processor is not None else "none"
        if processor is None or processor.params.format != FORMAT or len(fields) != 1:
            raise ConfigError(
                f"Albumentations: expected bbox_params=A.BboxParams(format={FORMAT!r}, label_fields=['labels']) in "
                f"Compose, found {params}"
            )
        self.pipeline = pipeline
        self.label_field = fields[0]

    def set_random_seed(self, seed: int) -> None:
        """Seed the pipeline. The dataset calls this method before each image."""
        self.pipeline.set_random_seed(seed)

    def __call__(self, sample: TrainingSample) -> TrainingSample:
        """Return the transformed image with the objects that the pipeline keeps."""
        indices = np.arange(len(sample.boxes_G4))
        result = self.pipeline(image=sample.image_HW3, bboxes=sample.boxes_G4, **{self.label_field: indices})
        kept_G = np.asarray(result[self.label_field], dtype=np.int64)
        boxes_G4 = np.asarray(result["bboxes"], dtype=np.float64).reshape(-1, 4)
        return replace(sample.keep(kept_G), image_HW3=result["image"], boxes_G4=boxes_G4)
