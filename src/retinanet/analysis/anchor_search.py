"""Search anchor levels, sizes, scales and ratios for the objects of a dataset, within RetinaNet's structure.

All positions of a level share their anchors, and all levels share scales and ratios. On each level, an object's best
anchor therefore lies at the position nearest to the object's centre. Its IoU depends on the object's sides and on the
distance between the position and the centre. `best_ious` computes this IoU exactly, for all objects at once.

A design has five numbers, whatever its numbers of levels, scales and ratios: the sizes of the levels, the scales and
the ratios are geometric sequences. So few numbers cannot follow the accidents of a small dataset.
Shape suffixes: O objects, L levels, C anchors of one position.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.coverage import input_boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from retinanet.config import ImageConfig, ModelConfig
    from retinanet.data import DetectionData

    Floats = npt.NDArray[np.float64]

SEARCHED: Final = 1000
"""Number of varied objects that the search fits anchors to: the standard error of a share of 98 % is 0.4 %."""
FEW: Final = 50
"""With fewer objects, the ratios stay symmetric about 1: height and width get the same ratios."""
SIZE_SPREAD: Final = (0.07, 0.3)
"""Objects of new images are a bit larger or smaller than the training objects. The search multiplies the size of each
object by exp(N(0, s)), s = 0.07 + 0.3 / sqrt(objects): 7 % for large data, 14 % for 20 objects."""
RATIO_SPREAD: Final = (0.05, 0.5)
"""Spread of the ratios, as `SIZE_SPREAD`."""
MOST_STRIDES: Final = 8.0
"""Maximum side of an anchor in strides of its level; 6.3 by default. Larger objects belong to coarser levels."""
MOST_SCALES: Final = 4
MOST_RATIOS: Final = 5
TOLERANCE: Final = 0.005
"""A level, scale or ratio is left out if the value of the design falls by at most this much: half a percent of the
objects, or 0.01 of the mean best IoU."""
ENOUGH: Final = 0.985
"""Anchors are added only while fewer objects than this share match an anchor. Half a percent above the aim of 98 %,
because a search on a sample finds a share that is slightly too high."""
GAIN: Final = 0.01
"""Minimum share of objects that a further scale or two further ratios must add."""
LEFT_FOR_P2: Final = 0.02
"""A level P2 is tried if more than this share of the objects match no anchor of the coarser levels."""
GAIN_OF_P2: Final = 0.01
"""Minimum share of objects that a level P2 must add: it has three times as many anchors as all other levels
together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InputObjects:
    """Objects in input pixels: centres, sides, size (width, height) of the padded input, and weights with the sum 1."""

    x_O: Floats
    y_O: Floats
    width_O: Floats
    height_O: Floats
    padded_O2: Floats
    weight_O: Floats
    _distances: dict[int, tuple[Floats, Floats]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.x_O)

    @classmethod
    def of(cls, data: DetectionData, image_config: ImageConfig, images: Sequence[int] | None = None) -> InputObjects:
        """Return the objects of the images with these indices, by default of all images. Crowd regions are left out.

        Each object has the weight 1 / sqrt(objects of its class), so that a search does not trade rare classes for
        frequent ones.
        """
        boxes, padded, labels = [np.empty((0, 4))], [np.empty((0, 2))], [np.empty(0, np.int64)]
        for index in range(len(data.records)) if images is None else images:
            record = data.records[index]
            keep = ~record.crowd_G
            boxes_G4, size = input_boxes(record, image_config)
            boxes.append(boxes_G4.double().numpy()[keep])
            divisor = image_config.size_divisor
            padded.append(np.tile([-(-side // divisor) * divisor for side in size], (int(keep.sum()), 1)))
            labels.append(record.labels_G[keep])
        boxes_O4, label_O = np.concatenate(boxes), np.concatenate(labels)
        weight_O = 1 / np.sqrt(np.bincount(label_O, minlength=1)[label_O])
        sides_O2 = boxes_O4[:, 2:] - boxes_O4[:, :2]
        return cls(
            x_O=(boxes_O4[:, 0] + boxes_O4[:, 2]) / 2,
            y_O=(boxes_O4[:, 1] + boxes_O4[:, 3]) / 2,
            width_O=sides_O2[:, 0],
            height_O=sides_O2[:, 1],
            padded_O2=np.concatenate(padded),
            weight_O=weight_O / max(weight_O.sum(), 1e-30),
        )

    def distances(self, level: int) -> tuple[Floats, Floats]:
        """Return the horizontal and vertical distance of each centre to the nearest position of a level, pixels."""
        if level not in self._distances:
            stride = 2.0**level
            dx_O, dy_O = (
                np.abs(c - np.clip(np.round(c / stride), 0, np.ceil(side / stride) - 1) * stride)
                for c, side in zip((self.x_O, self.y_O), self.padded_O2.T, strict=True)
            )
            self._distances[level] = dx_O, dy_O
        return self._distances[level]

    def varied(self, count: int, size_factors: Sequence[float], seed: int) -> InputObjects:
        """Return `count` objects with random sizes, ratios and places near those of these objects.

        Args:
            count: number of objects to return.
            size_factors: smallest and largest factor of the augmentation on the size of an image. Half of the objects
                get such a factor; validation has the factor 1.
            seed: seed of the random numbers.
        """
        rng = np.random.default_rng(seed)
        few = 1 / math.sqrt(len(self))
        chosen = rng.permutation(np.arange(max(count, len(self))) % len(self))[:count]
        low, high = np.log(size_factors[0]), np.log(size_factors[-1])
        factor_O = np.exp(rng.uniform(low, high, count) * (rng.random(count) < 0.5))
        size_O = np.exp(rng.normal(0, SIZE_SPREAD[0] + SIZE_SPREAD[1] * few, count)) * factor_O
        root_O = np.exp(rng.normal(0, RATIO_SPREAD[0] + RATIO_SPREAD[1] * few, count) / 2)
        padded_O2 = self.padded_O2[chosen] * factor_O[:, None]
        width_O = np.minimum(self.width_O[chosen] * size_O / root_O, padded_O2[:, 0])
        height_O = np.minimum(self.height_O[chosen] * size_O * root_O, padded_O2[:, 1])
        x_O, y_O = (
            np.clip(centre_O[chosen] * factor_O + rng.uniform(-16, 16, count), side_O / 2, limit_O - side_O / 2)
            for centre_O, side_O, limit_O in (
                (self.x_O, width_O, padded_O2[:, 0]),
                (self.y_O, height_O, padded_O2[:, 1]),
            )
        )
        weight_O = self.weight_O[chosen]
        return InputObjects(
            x_O=x_O,
            y_O=y_O,
            width_O=width_O,
            height_O=height_O,
            padded_O2=padded_O2,
            weight_O=weight_O / weight_O.sum(),
        )


def best_ious(
    objects: InputObjects,
    *,
    levels: Sequence[int],
    sizes: Sequence[float] | Floats,
    scales: Sequence[float] | Floats,
    ratios: Sequence[float] | Floats,
) -> Floats:
    """Return each object's highest IoU with any anchor of the grid, (O,).

    The IoU follows from the sides and the distance between the centres. `box_iou_batch` would need the corners of every
    anchor.
    """
    best_O = np.zeros(len(objects.width_O))
    scale_C = np.tile(scales, len(ratios))
    root_C = np.sqrt(np.repeat(ratios, len(scales)))
    for level, size in zip(levels, sizes, strict=True):
        dx_O, dy_O = objects.distances(level)
        width_C, height_C = size * scale_C / root_C, size * scale_C * root_C
        common_OC = _common(objects.width_O, dx_O, width_C) * _common(objects.height_O, dy_O, height_C)
        area_O = objects.width_O * objects.height_O
        iou_OC = common_OC / (area_O[:, None] + (width_C * height_C)[None] - common_OC)
        best_O = np.maximum(best_O, iou_OC.max(axis=1))
    return best_O


def _common(side_O: Floats, distance_O: Floats, anchor_C: Floats) -> Floats:
    """Return the overlap length of two intervals whose centres are `distance_O` apart, (O, C)."""
    shorter_OC = np.minimum(side_O[:, None], anchor_C)
    apart_OC = (side_O / 2 - distance_O)[:, None] + anchor_C / 2
    return np.minimum(shorter_OC, apart_OC).clip(0)


@dataclass(frozen=True, kw_only=True)
class AnchorDesign:
    """Anchors as geometric sequences.

    Args:
        levels: feature levels.
        scales: number of scales.
        ratios: number of ratios.
        numbers: logarithms of: the size of the first level; the factor from level to level; the factor from scale to
            scale; the middle ratio; the factor from ratio to ratio.
    """

    levels: tuple[int, ...]
    scales: int
    ratios: int
    numbers: tuple[float, ...]

    @classmethod
    def of(cls, config: ModelConfig) -> AnchorDesign:
        """Return the design that is nearest to the anchors of a config."""
        ratios = sorted(config.anchor_ratios)
        numbers = (
            math.log(config.anchor_sizes[0]),
            _step(config.anchor_sizes, 2.0),
            _step(config.anchor_scales, 2 ** (1 / 3)),
            math.log(ratios[len(ratios) // 2]),
            _step(ratios, 2.0),
        )
        return cls(levels=config.levels, scales=len(config.anchor_scales), ratios=len(ratios), numbers=numbers)

    @property
    def cost(self) -> float:
        """Number of anchors, in anchors per position of level 0."""
        return self.scales * self.ratios * sum(4.0**-level for level in self.levels)

    def anchors(self, largest: float) -> dict[str, Floats]:
        """Return sizes, scales and ratios. No square anchor has a side above `largest`, pixels."""
        first, level_step, scale_step, ratio, ratio_step = self.numbers
        scales = np.exp(scale_step * np.arange(self.scales))
        stride_L = 2.0 ** np.array(self.levels)
        most_L = np.maximum(np.minimum(MOST_STRIDES * stride_L, largest) / scales[-1], 1.0)
        sizes = np.clip(np.exp(first + level_step * np.arange(len(self.levels))), np.minimum(stride_L, most_L), most_L)
        ratios = np.exp(ratio + ratio_step * (np.arange(self.ratios) - (self.ratios - 1) / 2))
        return {"sizes": sizes, "scales": scales, "ratios": ratios}

    def free_numbers(self, fixed: Sequence[int]) -> list[int]:
        """Return the indices of the numbers that have an effect and are not in `fixed`."""
        effective = {0, 3, *([1] if len(self.levels) > 1 else []), *([2] if self.scales > 1 else [])}
        return sorted((effective | ({4} if self.ratios > 1 else set())) - set(fixed))

    def neighbours(self, index: int, step: float) -> Iterator[AnchorDesign]:
        """Yield two designs in which one number is lower and higher by `step` times the number's spread."""
        for sign in (-1, 1):
            numbers = list(self.numbers)
            numbers[index] = float(np.clip(numbers[index] + sign * step * _SPREADS[index], *_BOUNDS[index]))
            yield dataclasses.replace(self, numbers=tuple(numbers))

    def smaller(self) -> list[AnchorDesign]:
        """Return the designs with one level, scale or pair of ratios less, the cheapest first."""
        first, level_step, scale_step, ratio, ratio_step = self.numbers
        designs = []
        if len(self.levels) > 1:
            if self.levels[1] <= 5:
                start = (first + level_step, *self.numbers[1:])
                designs.append(dataclasses.replace(self, levels=self.levels[1:], numbers=start))
            designs.append(dataclasses.replace(self, levels=self.levels[:-1]))
        if self.scales > 1:
            wider = scale_step * self.scales / (self.scales - 1)
            designs.append(
                dataclasses.replace(self, scales=self.scales - 1, numbers=(first, level_step, wider, ratio, ratio_step))
            )
        if self.ratios > 2:
            designs.append(dataclasses.replace(self, ratios=self.ratios - 2))
        return sorted(designs, key=lambda design: design.cost)

    def larger(self) -> list[AnchorDesign]:
        """Return the designs with one scale more or two ratios more."""
        first, level_step, scale_step, *ratios = self.numbers
        designs = []
        if self.scales < MOST_SCALES:
            numbers = (first, level_step, scale_step * self.scales / (self.scales + 1), *ratios)
            designs.append(dataclasses.replace(self, scales=self.scales + 1, numbers=numbers))
        if self.ratios + 2 <= MOST_RATIOS:
            designs.append(dataclasses.replace(self, ratios=self.ratios + 2))
        return designs

    def with_p2(self) -> AnchorDesign:
        """Return the design with a level P2 below P3."""
        first, level_step, *others = self.numbers
        return dataclasses.replace(self, levels=(2, *self.levels), numbers=(first - level_step, level_step, *others))


def _step(values: Sequence[float], default: float) -> float:
    """Return the mean logarithmic step of a sequence."""
    return math.log(values[-1] / values[0]) / (len(values) - 1) if len(values) > 1 else math.log(default)


_SPREADS: Final = (1.0, 0.5, 0.4, 0.7, 0.7)
_BOUNDS: Final = tuple(
    (math.log(low), math.log(high)) for low, high in ((1, 1e5), (1.3, 3), (1.08, 2.2), (0.2, 5), (1.15, 4))
)
_STARTS: Final = tuple(np.arange(-2.5, 1.01, 0.5).tolist())
"""Shifts of the sizes that are tried as the start of a search, in octaves (powers of two)."""


@dataclass(frozen=True, kw_only=True)
class AnchorSearch:
    """Search for anchors that match the objects.

    The value of a design is the weighted share of objects that have an anchor with an IoU of at least `positive_iou`,
    plus half the weighted mean of the best IoU.

    Args:
        objects: varied objects, which the anchors are fitted to.
        real: objects of the data. No result matches a smaller share of these than `least`.
        positive_iou: minimum IoU of a positive anchor.
        least: minimum share of the real objects that match an anchor.
        fixed: indices of the numbers of a design that do not change.
        can_add_p2: function that returns whether the network can have a level P2.
        keep_levels: keep the feature levels.
    """

    objects: InputObjects
    real: InputObjects
    positive_iou: float
    least: float
    fixed: tuple[int, ...] = ()
    can_add_p2: Callable[[], bool] = lambda: True
    keep_levels: bool = False

    @property
    def largest(self) -> float:
        """Maximum side of a square anchor: it has the area of the largest image."""
        return float(np.sqrt(self.real.padded_O2.prod(axis=1).max()))

    def run(self, config: ModelConfig) -> ModelConfig:
        """Return the config with fitted levels, sizes, scales and ratios."""
        start = AnchorDesign.of(config)
        shifts = [(start.numbers[0] + octaves * math.log(2), *start.numbers[1:]) for octaves in _STARTS]
        designs = [dataclasses.replace(start, numbers=numbers) for numbers in shifts]
        best = self.reduce(self.extend(self.tune(max(designs, key=self.value))))
        anchors = best.anchors(self.largest)
        return dataclasses.replace(
            config,
            levels=best.levels,
            anchor_sizes=tuple(float(f"{size:.3g}") for size in anchors["sizes"]),
            anchor_scales=tuple(round(float(scale), 3) for scale in anchors["scales"]),
            anchor_ratios=tuple(float(f"{ratio:.2g}") for ratio in anchors["ratios"]),
        )

    def extend(self, design: AnchorDesign) -> AnchorDesign:
        """Return a design with more scales, ratios or a level P2, while objects match no anchor and these help."""
        wider = self._widen(design)
        share = self.share(wider)
        if share >= 1 - LEFT_FOR_P2 or design.levels[0] != 3 or self.keep_levels or not self.can_add_p2():
            return wider
        finer = self._widen(self.tune(design.with_p2()))
        return finer if self.share(finer) >= share + GAIN_OF_P2 else wider

    def _widen(self, design: AnchorDesign) -> AnchorDesign:
        """Return a design with more scales or ratios, while these help."""
        while (share := self.share(design)) < ENOUGH:
            tried = [self.tune(larger) for larger in design.larger()]
            useful = [larger for larger in tried if self.share(larger) >= share + GAIN]
            if not useful:
                break
            design = max(useful, key=lambda larger: (self.share(larger) - share) / math.log(larger.cost / design.cost))
        return design

    def reduce(self, design: AnchorDesign) -> AnchorDesign:
        """Return a design without the levels, scales and ratios that the objects do not need."""
        least = self.value(design) - TOLERANCE
        share = min(self.least, self.share(design, self.real))
        while True:
            for smaller in design.smaller():
                if self.keep_levels and smaller.levels != design.levels:
                    continue
                tuned = self.tune(smaller)
                if self.value(tuned) >= least and self.share(tuned, self.real) >= share:
                    design = tuned
                    break
            else:
                return design

    def tune(self, design: AnchorDesign) -> AnchorDesign:
        """Return the design with the best numbers that a pattern search finds from here."""
        value, step = self.value(design), 0.25
        while step > 0.03:
            improved = False
            for index in design.free_numbers(self.fixed):
                for neighbour in design.neighbours(index, step):
                    if (new := self.value(neighbour)) > value + 1e-4:
                        design, value, improved = neighbour, new, True
                        break
            step = step if improved else step / 2
        return design

    def value(self, design: AnchorDesign) -> float:
        """Return the value of a design, between 0 and 1.5."""
        best_O = self.ious(design, self.objects)
        return float((self.objects.weight_O * ((best_O >= self.positive_iou) + 0.5 * best_O)).sum())

    def share(self, design: AnchorDesign, objects: InputObjects | None = None) -> float:
        """Return the share of objects that match an anchor, by default the weighted share of the varied objects."""
        if objects is not None:
            return float((self.ious(design, objects) >= self.positive_iou).mean())
        return float(self.objects.weight_O @ (self.ious(design, self.objects) >= self.positive_iou))

    def ious(self, design: AnchorDesign, objects: InputObjects) -> Floats:
        """Return the highest IoU of each object with an anchor of the design."""
        return best_ious(objects, levels=design.levels, **design.anchors(self.largest))
