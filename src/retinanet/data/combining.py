"""Augmentations that combine a training image with other training images: mosaic, copy-paste and mixup."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinanet import images
from retinanet.data.copy_paste import MAX_PASTES, PasteSources, paste
from retinanet.data.mixing import mixup, mosaic
from retinanet.data.transforms import max_size_for

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from retinanet.config import AugmentConfig, ImageConfig
    from retinanet.data.transforms import Scene
    from retinanet.formats.records import DetectionData, Record

    Read = Callable[[Record], Scene]

COPY_PASTE, MOSAIC, MIXUP = 2, 3, 4
"""Number of each augmentation's random stream. `transform_seed` has number 1."""


class ImageCombiner:
    """Combine a training image with random other images of the dataset. The size of the image does not change.

    The random numbers of an image depend on its sample seed only. Each augmentation has its own numbers, which do not
    depend on the options of the others. Mosaic comes first, then copy-paste, then mixup.

    Args:
        data: the dataset. With a single image, mosaic and mixup do nothing. Without an object in another image,
            copy-paste does nothing.
        augment: probabilities of the augmentations.
        image_config: size of the resized images.
        expected_draws: weight of each image in the draws of mosaic and mixup. None: equal weights.
    """

    def __init__(
        self,
        *,
        data: DetectionData,
        augment: AugmentConfig,
        image_config: ImageConfig,
        expected_draws: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.data = data
        self.config = augment
        self.image_config = image_config
        self.ends_N = np.cumsum(np.ones(len(data.records)) if expected_draws is None else expected_draws)
        self.sources = PasteSources.of(data) if augment.copy_paste > 0 else None

    def combine(self, scene: Scene, read: Read, *, index: int, seed: int, image_size: int) -> Scene:
        """Return the scene combined with other images.

        Args:
            scene: image of the sample.
            read: function that reads the image of a record.
            index: index of the sample's image.
            seed: seed of the sample.
            image_size: shorter side of the resized images, pixels.
        """
        rngs = {number: np.random.default_rng([seed, number]) for number in (COPY_PASTE, MOSAIC, MIXUP)}
        input_scale = self._input_scale(scene, image_size)

        def read_with_ratio(image: int) -> tuple[Scene, float]:
            other = read(self.data.records[image])
            return other, self._input_scale(other, image_size) / input_scale

        has_others = len(self.data.records) > 1
        if (rng := rngs[MOSAIC]).random() < self.config.mosaic and has_others and min(scene.image.size) > 1:
            others = [read_with_ratio(self._other_image(index, rng)) for _ in range(3)]
            scene = mosaic([(scene, 1.0), *others], size=scene.image.size, rng=rng)
        if (rng := rngs[COPY_PASTE]).random() < self.config.copy_paste:
            for image, object_index in self._objects_to_paste(index, rng):
                source, ratio = read_with_ratio(image)
                flip = self.config.flip
                scene = paste(scene, source, object_index, ratio=ratio, input_scale=input_scale, flip=flip, rng=rng)
        if (rng := rngs[MIXUP]).random() < self.config.mixup and has_others:
            other, ratio = read_with_ratio(self._other_image(index, rng))
            scene = mixup(scene, other, ratio=ratio, rng=rng)
        return scene

    def _objects_to_paste(self, index: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Return (image, object) of 1 to `MAX_PASTES` random objects, without those of the sample's own file."""
        if self.sources is None or not len(self.sources.images_S):
            return []
        drawn = [self.sources.draw(rng) for _ in range(rng.integers(1, MAX_PASTES + 1))]
        own = self.data.records[index].path
        return [(image, number) for image, number in drawn if self.data.records[image].path != own]

    def _other_image(self, index: int, rng: np.random.Generator) -> int:
        """Return the index of a random image that is not the sample's image."""
        start = self.ends_N[index - 1] if index else 0.0
        weight = self.ends_N[index] - start
        place = rng.random() * (self.ends_N[-1] - weight)
        place += weight if place >= start else 0.0
        return int(min(np.searchsorted(self.ends_N, place, side="right"), len(self.ends_N) - 1))

    def _input_scale(self, scene: Scene, image_size: int) -> float:
        """Return the size of a pixel of the scene in pixels of the network's input."""
        max_size = max_size_for(self.image_config, image_size=image_size)
        width, _ = images.resized_size(*scene.image.size, image_size=image_size, max_size=max_size)
        return width / scene.image.width
