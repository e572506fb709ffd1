"""Augmentations that combine a training image with other training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retinanet import images
from retinanet.data.copy_paste import MAX_PASTES, PasteSources, paste
from retinanet.data.transforms import max_size_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from retinanet.config import AugmentConfig, ImageConfig
    from retinanet.data.transforms import Scene
    from retinanet.formats.records import DetectionData, Record


class ImageCombiner:
    """Combine a training image with random other images of the dataset.

    The random numbers of an image depend on its sample seed only. Each augmentation has its own numbers, which do not
    depend on the options of the others.

    Args:
        data: the dataset.
        augment: probabilities of the augmentations.
        image_config: size of the resized images.
    """

    def __init__(self, *, data: DetectionData, augment: AugmentConfig, image_config: ImageConfig) -> None:
        self.data = data
        self.config = augment
        self.image_config = image_config
        self.sources = PasteSources.of(data) if augment.copy_paste > 0 else None

    def combine(
        self, scene: Scene, read: Callable[[Record], Scene], *, index: int, seed: int, image_size: int
    ) -> Scene:
        """Return the scene combined with other images, in a scene of equal size.

        Args:
            scene: image of the sample.
            read: function that reads the image of a record.
            index: index of the sample's image.
            seed: seed of the sample.
            image_size: shorter side of the resized images, pixels.
        """
        input_scale = self._input_scale(scene, image_size)
        rng = np.random.default_rng([seed, 2])
        if rng.random() < self.config.copy_paste and self.sources is not None and len(self.sources.images_S):
            for _ in range(rng.integers(1, MAX_PASTES + 1)):
                image, object_index = self.sources.draw(rng)
                if self.data.records[image].path == self.data.records[index].path:
                    continue
                source = read(self.data.records[image])
                scene = paste(
                    scene,
                    source,
                    object_index,
                    ratio=self._input_scale(source, image_size) / input_scale,
                    input_scale=input_scale,
                    flip=self.config.flip,
                    rng=rng,
                )
        return scene

    def _input_scale(self, scene: Scene, image_size: int) -> float:
        """Return the size of a pixel of the scene in pixels of the network's input."""
        max_size = max_size_for(self.image_config, image_size=image_size)
        width, _ = images.resized_size(*scene.image.size, image_size=image_size, max_size=max_size)
        return width / scene.image.width
