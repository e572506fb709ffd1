"""One image of a dataset, as the network sees it. Shape suffixes: H, W; 3 is RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from retinanet import images
from retinanet.config import AugmentConfig, ImageConfig, is_object_name
from retinanet.data import transforms
from retinanet.data.user_transform import Transform, apply_transform, load_transform, transform_seed
from retinanet.formats.records import DataError, DetectionData, Record
from retinanet.images import Frame
from retinanet.types import Target


class SampleKey(NamedTuple):
    """What a sampler asks a dataset for."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a key
    """The image."""
    seed: int
    """All randomness of this sample, from 0 to 2^63 - 1: the same key gives the same pixels in any worker."""
    image_size: int
    """Shorter side of the resized image, pixels, before scale jitter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image of a batch to be.

    Args:
        pixels_3HW: uint8 RGB, resized.
        target: its objects, xyxy in pixels of `pixels_3HW`.
        frame: the size of the image (of the part that was cropped out of it), and of `pixels_3HW`.
        index: of the record in the data.
        image_id: of the record.
    """

    pixels_3HW: Tensor
    target: Target
    frame: Frame
    index: int
    image_id: int


class DetectionDataset(Dataset[Sample]):
    """The images of a dataset, decoded and augmented on demand.

    Args:
        data: what `load` returned.
        image_config: size of the images.
        augment: random changes for training; None or `augment=False` for none.
        transform: the user's own, after `augment`; what `augment.transform` names unless given.
    """

    def __init__(
        self,
        *,
        data: DetectionData,
        image_config: ImageConfig,
        augment: AugmentConfig | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.data = data
        self.image_config = image_config
        self.augment = augment if augment is not None and augment.augment else None
        spec = augment.transform if augment is not None else None
        self.transform = load_transform(spec) if transform is None and spec else transform
        self.transform_name = spec or type(transform).__qualname__
        self._reloads_transform = spec is not None and not is_object_name(spec)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out a transform that has a name: it may be a function within a function, which cannot be pickled."""
        return {**vars(self), "transform": None} if self._reloads_transform else vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load a transform by its name in a worker process that was not forked."""
        vars(self).update(state)
        if self._reloads_transform:
            self.transform = load_transform(self.transform_name)

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        """Return an image, augmented if asked for by a `SampleKey`, as it is if asked for by its number.

        Raises:
            DataError: the image vanished, broke or changed its size since the data was checked.
        """
        index = key.index if isinstance(key, SampleKey) else key
        image_size = key.image_size if isinstance(key, SampleKey) else self.image_config.image_size
        record = self.data.records[index]
        if isinstance(key, SampleKey) and (self.augment is not None or self.transform is not None):
            scene, original, image_size = self._training_scene(record, key)
        else:
            scene = self._read(record, image_size)
            original = (record.width, record.height)
        scene = transforms.resize(scene, self.image_config, image_size=image_size)
        target = Target(boxes_G4=scene.boxes_G4.float(), labels_G=scene.labels_G, crowd_G=scene.crowd_G)
        pixels_HW3 = torch.from_numpy(np.array(scene.image))
        return Sample(
            pixels_3HW=pixels_HW3.permute(2, 0, 1),
            target=target,
            frame=Frame(*original, *scene.image.size),
            index=index,
            image_id=record.image_id,
        )

    def _training_scene(self, record: Record, key: SampleKey) -> tuple[transforms.Scene, tuple[int, int], int]:
        """Return an augmented image, the size of its part of the original, and the shorter side to resize it to."""
        generator = torch.Generator().manual_seed(key.seed)
        image_size = key.image_size
        if self.augment is not None:
            image_size = transforms.jittered_size(image_size, self.augment, generator)
        # Crops and the user's transform get the pixels of the original, whatever the size that the network takes.
        whole = self.transform is not None or (self.augment is not None and self.augment.crop > 0)
        scene = self._read(record, image_size, resize=not whole)
        factor = record.width / scene.image.width
        if self.augment is not None:
            scene = transforms.augment(scene, self.augment, generator)
        if self.transform is not None:
            scene = apply_transform(
                scene,
                self.transform,
                seed=transform_seed(key.seed),
                num_classes=len(self.data.classes),
                name=self.transform_name,
                path=record.path,
            )
        return scene, (round(scene.image.width * factor), round(scene.image.height * factor)), image_size

    def _read(self, record: Record, image_size: int, *, resize: bool = True) -> transforms.Scene:
        """Return an image or a part of one, and its objects; with `resize` it may come at its final size already."""
        try:
            image, width, height = self._decode(record, image_size, resize=resize)
        except images.ImageError as error:
            raise DataError(f"an image cannot be read any more: {error}") from error
        if (width, height) != (record.width, record.height):
            raise DataError(
                f"{record.path}: expected {record.width}x{record.height} pixels, found {width}x{height}: "
                "it changed since the data was read"
            )
        scale = np.array([image.width / width, image.height / height] * 2)
        return transforms.Scene(
            image=image,
            boxes_G4=torch.from_numpy(record.boxes_G4 * scale),
            labels_G=torch.from_numpy(record.labels_G.copy()),
            crowd_G=torch.from_numpy(record.crowd_G.copy()),
        )

    def _decode(self, record: Record, image_size: int, *, resize: bool) -> images.Scaled:
        if record.window is None and not resize:
            image = images.decode(record.path)
            return images.Scaled(image, *image.size)
        if record.window is None:
            max_size = transforms.max_size_for(self.image_config, image_size=image_size)
            return images.decode_for(record.path, image_size=image_size, max_size=max_size)
        with images.open_windows(record.path) as windows:
            if record.window[2] > windows.size[0] or record.window[3] > windows.size[1]:  # crop() would add black
                return images.Scaled(windows.crop((0, 0, 1, 1)), *windows.size)
            image = windows.crop(record.window)
            return images.Scaled(image, *image.size)
