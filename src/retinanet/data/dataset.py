"""One picture of a data set, as the network sees it. Shape suffixes: H, W; 3 is RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from retinanet import images
from retinanet.config import AugmentConfig, ImageConfig
from retinanet.data import transforms
from retinanet.data.records import DataError, DetectionData
from retinanet.images import Frame
from retinanet.types import Target


class SampleKey(NamedTuple):
    """What a sampler asks a data set for."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a key
    """The picture."""
    seed: int
    """All randomness of this sample, from 0 to 2^63 - 1: the same key gives the same pixels in any worker."""
    image_size: int
    """Shorter side of the resized picture, pixels, before scale jitter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One picture of a batch to be.

    Args:
        pixels_3HW: uint8 RGB, resized.
        target: its objects, xyxy in pixels of `pixels_3HW`.
        frame: the size of the picture (of the part that was cropped out of it), and of `pixels_3HW`.
        index: of the record in the data.
        image_id: of the record.
    """

    pixels_3HW: Tensor
    target: Target
    frame: Frame
    index: int
    image_id: int


class DetectionDataset(Dataset[Sample]):
    """The pictures of a data set, decoded and augmented on demand.

    Args:
        data: what `load` returned.
        image_config: size of the pictures.
        augment: random changes for training; None or `augment=False` for none.
    """

    def __init__(self, *, data: DetectionData, image_config: ImageConfig, augment: AugmentConfig | None = None) -> None:
        self.data = data
        self.image_config = image_config
        self.augment = augment if augment is not None and augment.augment else None

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        """Return a picture, augmented if asked for by a `SampleKey`, as it is if asked for by its number.

        Raises:
            DataError: the picture vanished, broke or changed its size since the data was checked.
        """
        index = key.index if isinstance(key, SampleKey) else key
        image_size = key.image_size if isinstance(key, SampleKey) else self.image_config.image_size
        scene = self._read(index)
        if self.augment is not None and isinstance(key, SampleKey):
            generator = torch.Generator().manual_seed(key.seed)
            image_size = transforms.jittered_size(image_size, self.augment, generator)
            scene = transforms.augment(scene, self.augment, generator)
        original = scene.image.size
        scene = transforms.resize(scene, self.image_config, image_size=image_size)
        target = Target(boxes_G4=scene.boxes_G4.float(), labels_G=scene.labels_G, crowd_G=scene.crowd_G)
        pixels_HW3 = torch.from_numpy(np.array(scene.image))
        return Sample(
            pixels_3HW=pixels_HW3.permute(2, 0, 1),
            target=target,
            frame=Frame(*original, *scene.image.size),
            index=index,
            image_id=self.data.records[index].image_id,
        )

    def _read(self, index: int) -> transforms.Scene:
        record = self.data.records[index]
        try:
            image = images.decode(record.path)
            if record.window is not None:
                # beyond the edge, crop() would put black
                inside = record.window[2] <= image.width and record.window[3] <= image.height
                image = image.crop(record.window) if inside else image
        except images.ImageError as error:
            raise DataError(f"a picture cannot be read any more: {error}") from error
        if image.size != (record.width, record.height):
            raise DataError(
                f"{record.path}: expected {record.width}x{record.height} pixels, found {image.width}x{image.height}: "
                "it changed since the data was read"
            )
        return transforms.Scene(
            image=image,
            boxes_G4=torch.from_numpy(record.boxes_G4.copy()),
            labels_G=torch.from_numpy(record.labels_G.copy()),
            crowd_G=torch.from_numpy(record.crowd_G.copy()),
        )
