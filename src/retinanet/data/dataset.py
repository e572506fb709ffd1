"""The PyTorch dataset: decoded, augmented and resized images with their boxes. Shape suffixes: H, W; 3 is RGB."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from retinanet import images
from retinanet.config import AugmentConfig, ImageConfig, is_object_name
from retinanet.data import transforms
from retinanet.data.combining import ImageCombiner
from retinanet.data.image_cache import ImageCache
from retinanet.data.user_transform import Transform, apply_transform, load_transform, transform_seed
from retinanet.formats.records import DataError, DetectionData, Record
from retinanet.images import Frame
from retinanet.types import Target


class SampleKey(NamedTuple):
    """The key of a training sample: the image and every random choice of its augmentation.

    Equal keys give equal pixels in every worker process.
    """

    index: int  # type: ignore[assignment]  # hides the method tuple.index, which is not used
    """Index of the image in the dataset."""
    seed: int
    """Seed of all random numbers of this sample, 0 to 2^63 - 1."""
    image_size: int
    """Shorter side of the resized image, pixels, before scale jitter."""
    combine: bool = True
    """Whether copy-paste, mosaic and mixup, which use further images, are on for this sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One resized image with its ground truth, before normalisation and padding.

    Args:
        pixels_3HW: uint8 RGB, resized.
        target: ground truth; boxes are xyxy, pixels of `pixels_3HW`.
        frame: size of the original image, or of the crop of it, and size of `pixels_3HW`.
        index: index of the record in the data.
        image_id: image id of the record.
    """

    pixels_3HW: Tensor
    target: Target
    frame: Frame
    index: int
    image_id: int


class DetectionDataset(Dataset[Sample]):
    """The images of a dataset, decoded and augmented on demand.

    Args:
        data: dataset that `load` returned.
        image_config: size of the resized images.
        augment: options of the augmentation. None, or options with `augment=False`, switch it off.
        transform: custom transform, applied after the augmentation. By default, the one that `augment.transform` names.
        expected_draws: expected number of draws of each image per epoch, see `EpochSampling.draws_N`. The further
            images of mosaic and mixup are drawn in proportion. None: all images alike.
        cache: images in memory, which are not read from their files.
    """

    def __init__(
        self,
        *,
        data: DetectionData,
        image_config: ImageConfig,
        augment: AugmentConfig | None = None,
        transform: Transform | None = None,
        expected_draws: npt.NDArray[np.float64] | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        self.data = data
        self.cache = cache
        self.image_config = image_config
        self.augment = augment if augment is not None and augment.augment else None
        self.combiner = None
        if self.augment is not None and self.augment.combining:
            self.combiner = ImageCombiner(
                data=data, augment=self.augment, image_config=image_config, expected_draws=expected_draws
            )
        spec = augment.transform if augment is not None else None
        self.transform = load_transform(spec) if transform is None and spec else transform
        self.transform_name = spec or type(transform).__qualname__
        self._reloads_transform = spec is not None and not is_object_name(spec)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out a transform that can be loaded by its name. A nested function, for example, cannot be pickled."""
        return {**vars(self), "transform": None} if self._reloads_transform else vars(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the transform by its name in a worker process that was spawned, not forked."""
        vars(self).update(state)
        if self._reloads_transform:
            self.transform = load_transform(self.transform_name)

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        """Return an image with its ground truth.

        Args:
            key: a `SampleKey` for an augmented image, or an index for the image without augmentation.

        Raises:
            DataError: the image file was removed, damaged or changed in size after the dataset was checked.
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
        """Return an augmented image, its (width, height) in original pixels, and the shorter side to resize it to."""
        generator = torch.Generator().manual_seed(key.seed)
        image_size = key.image_size
        if self.augment is not None:
            image_size = transforms.jittered_size(image_size, self.augment, generator)
        # Crops and custom transforms work on original pixels, so the image must not be reduced while decoding.
        needs_original = self.transform is not None or (self.augment is not None and self.augment.crop > 0)
        read = partial(self._read, image_size=image_size, resize=not needs_original)
        scene = read(record)
        factor = record.width / scene.image.width
        if self.combiner is not None and key.combine:
            scene = self.combiner.combine(scene, read, index=key.index, seed=key.seed, image_size=image_size)
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
        """Return the image, or the tile, of a record with its objects. With `resize`, decoding may reduce its size."""
        try:
            image, width, height, *_ = self._decode(record, image_size, resize=resize)
        except images.ImageError as error:
            raise DataError(
                f"{error}. The image was readable when the dataset was checked: restore the file and start again"
            ) from error
        if (width, height) != (record.width, record.height):
            raise DataError(
                f"{record.path}: expected {record.width}x{record.height} pixels, found {width}x{height}. "
                "The image changed after the dataset was checked: restore the file and start again"
            )
        scale = np.array([image.width / width, image.height / height] * 2)
        keep_G = _rows_for_the_loss(record)
        return transforms.Scene(
            image=image,
            boxes_G4=torch.from_numpy(record.boxes_G4[keep_G] * scale),
            labels_G=torch.from_numpy(record.labels_G[keep_G]),
            crowd_G=torch.from_numpy(record.crowd_G[keep_G]),
        )

    def _decode(self, record: Record, image_size: int, *, resize: bool) -> images.Scaled:
        bit_depth = self.image_config.bit_depth
        max_size = transforms.max_size_for(self.image_config, image_size=image_size)
        if self.cache is not None:
            cached = self.cache.get(record, image_size=image_size, max_size=max_size, resize=resize)
            if cached is not None:
                return cached
        if record.window is None and not resize:
            image = images.decode(record.path, bit_depth=bit_depth)
            return images.Scaled(image, *image.size)
        if record.window is None:
            return images.decode_for(record.path, image_size=image_size, max_size=max_size, bit_depth=bit_depth)
        with images.open_windows(record.path, bit_depth=bit_depth) as windows:
            if record.window[2] > windows.size[0] or record.window[3] > windows.size[1]:
                # crop() would fill the missing part with black. The caller compares the size and raises.
                return images.Scaled(windows.crop((0, 0, 1, 1)), *windows.size)
            image = windows.crop(record.window)
            return images.Scaled(image, *image.size)


def _rows_for_the_loss(record: Record) -> npt.NDArray[np.bool_]:
    """Return which rows of a record the loss needs: not those of an ignore region that repeat its box.

    The assigners ignore an anchor in an ignore region for every class. The index of every object stays that of the
    record, because only rows after the last object are left out.
    """
    last = np.flatnonzero(~record.crowd_G).max(initial=-1)
    is_before_G: npt.NDArray[np.bool_] = np.arange(len(record.crowd_G)) < last
    return record.distinct_G | is_before_G
