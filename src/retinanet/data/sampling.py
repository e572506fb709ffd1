"""Draw the images of a training epoch: each image once, images with rare classes more often, or classes equally often.

Shape suffixes: N images, K classes, P pairs of an image and a class that the image contains. Images may be tiles. Crowd
regions do not count as objects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.errors import list_names

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.config import SamplingConfig
    from retinanet.formats.records import DetectionData

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageClasses:
    """The classes that each image of a dataset contains.

    Args:
        images_P: index of the image.
        classes_P: class id.
        objects_P: number of objects of the class in the image, above 0.
        num_images: number of images, N.
        num_classes: number of classes, K.
    """

    images_P: Integers
    classes_P: Integers
    objects_P: Integers
    num_images: int
    num_classes: int

    @classmethod
    def of(cls, data: DetectionData) -> ImageClasses:
        """Return the classes that each image of `data` contains."""
        N, K = len(data.records), len(data.classes)
        labels = [record.labels_G[~record.crowd_G] for record in data.records]
        images = np.repeat(np.arange(N), [len(labels_G) for labels_G in labels])
        pairs_P, objects_P = np.unique(images * K + np.concatenate(labels), return_counts=True)
        return cls(images_P=pairs_P // K, classes_P=pairs_P % K, objects_P=objects_P, num_images=N, num_classes=K)

    @property
    def images_K(self) -> Integers:
        """Number of images that contain each class."""
        return np.bincount(self.classes_P, minlength=self.num_classes)

    @property
    def has_objects_N(self) -> npt.NDArray[np.bool_]:
        """Whether each image contains an object."""
        return np.bincount(self.images_P, minlength=self.num_images) > 0

    def sum_by_class(self, values_P: npt.NDArray[Any]) -> Floats:
        """Return the sum of `values_P` over the images of each class."""
        return np.bincount(self.classes_P, weights=values_P, minlength=self.num_classes).astype(np.float64)


def automatic_threshold(contained: ImageClasses) -> float:
    """Return the repeat threshold `auto`: the fraction of images with objects, divided by the number of their classes.

    If every image with objects contained one class, and all classes were equally frequent, each class would lie in this
    fraction of the images. On LVIS with 1,203 classes, the value is 0.0008; the paper uses 0.001. The sum of all repeat
    factors is at most 1.25 times the number of images: sqrt(t f) - f, which a rare class adds, is at most t / 4.
    """
    num_classes = np.count_nonzero(contained.images_K)
    return float(contained.has_objects_N.mean() / max(1, num_classes))


def repeat_factors(contained: ImageClasses, *, threshold: float) -> Floats:
    """Return the repeat factor of each image (Gupta et al., arXiv 1908.03195, appendix B.2 "Repeat factor sampling").

    The factor of class c is r(c) = max(1, sqrt(t / f(c))): f(c) is the fraction of images that contain the class, t is
    `threshold`. The factor of an image is the largest factor of its classes, and 1 without objects.
    """
    frequency_K = contained.images_K / contained.num_images
    factor_P = np.sqrt(threshold / frequency_K[contained.classes_P])
    factors_N = np.ones(contained.num_images)
    np.maximum.at(factors_N, contained.images_P, factor_P)
    return factors_N


def balanced_weights(contained: ImageClasses) -> Floats:
    """Return the expected number of draws of each image if every class is drawn equally often. The sum is N.

    An image without objects is drawn once. The other draws are shared equally by the classes that have objects. The
    draws of a class are shared equally by the images that contain the class.
    """
    has_objects_N, images_K = contained.has_objects_N, contained.images_K
    draws_per_class = has_objects_N.sum() / max(1, np.count_nonzero(images_K))
    weights_P = draws_per_class / images_K[contained.classes_P]
    weights_N = np.bincount(contained.images_P, weights=weights_P, minlength=contained.num_images)
    return np.where(has_objects_N, weights_N, 1.0)


def draw_images(draws_N: npt.ArrayLike, rng: np.random.Generator) -> Integers:
    """Return the images of one epoch: image i comes floor(d) or floor(d) + 1 times, on average d = `draws_N[i]` times.

    The number of returned images is the sum of `draws_N`, which must be a whole number, in every epoch. For this, the
    fractional parts are rounded by systematic sampling: they are laid end to end in a random order, and the parts at
    the points u, u + 1, u + 2, ... are rounded up, with u uniform in [0, 1).
    """
    draws_N = np.asarray(draws_N, dtype=np.float64)
    whole_N = np.floor(draws_N).astype(np.int64)
    missing = round(math.fsum(draws_N)) - int(whole_N.sum())
    order_N = rng.permutation(len(draws_N))
    ends_N = np.cumsum((draws_N - whole_N)[order_N])
    places = np.searchsorted(ends_N, rng.random() + np.arange(missing), side="right")
    rounded_up = order_N[np.minimum(places, len(draws_N) - 1)]  # the last end may be rounded down
    return np.concatenate([np.repeat(np.arange(len(draws_N)), whole_N), rounded_up])


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochSampling:
    """How often an epoch uses each image, and the objects of each class, before augmentation.

    Args:
        sampler: name of the sampler.
        threshold: repeat threshold of the sampler `repeat_factor`, None for other samplers.
        draws_N: expected number of draws of each image per epoch. The sum is a whole number, the length of the epoch.
        contained: the classes that each image contains.
        classes: class names.
    """

    sampler: str
    threshold: float | None
    draws_N: Floats
    contained: ImageClasses
    classes: tuple[str, ...]

    @classmethod
    def of(cls, data: DetectionData, config: SamplingConfig) -> EpochSampling:
        """Return the sampling of a training dataset. The length of the epoch is the sum of all weights, rounded up."""
        contained = ImageClasses.of(data)
        weights_N, threshold = np.ones(contained.num_images), None
        if config.sampler == "repeat_factor":
            threshold = config.repeat_threshold or automatic_threshold(contained)
            weights_N = repeat_factors(contained, threshold=threshold)
        elif config.sampler == "balanced":
            weights_N = balanced_weights(contained)
        total = math.fsum(weights_N)
        length = math.ceil(round(total, 6))  # without `round`, an error in the last digit could add an image
        return cls(
            sampler=config.sampler,
            threshold=threshold,
            draws_N=weights_N * (length / total),
            contained=contained,
            classes=data.classes,
        )

    @property
    def images_per_epoch(self) -> int:
        """Number of images of an epoch, equal in all epochs."""
        return round(math.fsum(self.draws_N))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of sampling.json. Its entry `sentence` lists the ten rarest classes."""
        contained = self.contained
        draws_P = self.draws_N[contained.images_P]
        columns = {
            "images": contained.images_K,
            "objects": contained.sum_by_class(contained.objects_P).astype(int),
            "images_per_epoch": contained.sum_by_class(draws_P).round(3),
            "objects_per_epoch": contained.sum_by_class(draws_P * contained.objects_P).round(3),
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        per_class = {name: dict(zip(columns, row, strict=True)) for name, row in zip(self.classes, rows, strict=True)}
        return {
            "sampler": self.sampler,
            "repeat_threshold": self.threshold,
            "images": contained.num_images,
            "images_per_epoch": self.images_per_epoch,
            "per_class": per_class,
            "sentence": self._sentence(per_class),
        }

    def _sentence(self, per_class: dict[str, dict[str, float]]) -> str:
        """Return the length of an epoch and the expected images and objects of each class, the rarest class first."""
        rows = sorted(per_class.items(), key=lambda item: item[1]["images"])
        seen = list_names(
            [f"{name} {_text(row['images_per_epoch'])} ({_text(row['objects_per_epoch'])})" for name, row in rows]
        )
        threshold = "" if self.threshold is None else f" with threshold {self.threshold:.3g}"
        return (
            f"sampler {self.sampler}{threshold}: {self.images_per_epoch:,} images per epoch, "
            f"{self.contained.num_images:,} in the data. Expected images (objects) of each class per epoch: {seen}"
        )


def _text(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")
