"""Transform from an Albumentations pipeline: `--transform retinanet_extras.transforms:weather`."""

from __future__ import annotations

import albumentations as A

from retinanet.data import AlbumentationsTransform


def weather() -> AlbumentationsTransform:
    """Return a transform that randomly flips, blurs and changes the brightness."""
    steps = [A.HorizontalFlip(p=0.5), A.GaussianBlur(blur_limit=(3, 3), p=0.3), A.RandomBrightnessContrast(p=0.5)]
    return AlbumentationsTransform(
        A.Compose(steps, bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"]))
    )
