"""Fit anchor sizes, scales and ratios to the objects of a dataset, within RetinaNet's structure.

All positions of a level share their anchors, and all levels share scales and ratios. On each level, an object's best
anchor therefore lies at the position nearest to the object's centre. Its IoU depends on the object's sides and on the
distance between the position and the centre. The search computes this IoU exactly, for all objects at once. The
matching of training then measures the fitted anchors before they are proposed.
Shape suffixes: O objects, L levels, C anchors of one position.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.coverage import Coverage, coverage, input_boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from retinanet.config import ImageConfig, MatchConfig, ModelConfig
    from retinanet.data import DetectionData

    Floats = npt.NDArray[np.float64]

MOST_IMAGES: Final = 2000
"""Maximum number of images to measure; a larger dataset is sampled evenly."""
MOST_OBJECTS: Final = 5000
"""Maximum number of objects in the search; more are sampled at random. The measurement uses all objects."""
STEPS: Final = 500
"""Proposals of the local search."""
WORTHWHILE: Final = 0.005
"""Minimum gain, as a share of the objects, for which other anchors are proposed."""
LEFT_FOR_P2: Final = 0.01
"""A P2 level is tried if more than this share of the objects has no positive anchor."""
GAIN_OF_P2: Final = 0.01
"""A P2 level is added if it gives at least this share of the objects a positive anchor: it has three times as many
anchors as all other levels together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedAnchors:
    """Anchors fitted to a dataset, with the coverage before and after.

    Args:
        model_config: the config with fitted anchors, or the original config if fitting gains too little.
        before: coverage by the original anchors.
        after: coverage by the anchors of `model_config`.
        positive_iou: minimum IoU of a positive anchor.
    """

    model_config: ModelConfig
    before: Coverage
    after: Coverage
    positive_iou: float

    @property
    def changed(self) -> bool:
        """Whether the fitted anchors differ from the original ones."""
        return self.after is not self.before

    def flags(self) -> str:
        """Return the options of `retinanet train` for these anchors; "" if the anchors did not change."""
        if not self.changed:
            return ""
        config = self.model_config
        options = {"anchor-sizes": config.anchor_sizes, "anchor-scales": config.anchor_scales}
        options["anchor-ratios"] = config.anchor_ratios
        parts = [f"--{name} {' '.join(f'{value:g}' for value in values)}" for name, values in options.items()]
        if len(config.levels) != len(self.before.levels):
            parts.insert(0, f"--levels {' '.join(map(str, config.levels))}")
        return " ".join(parts)

    def sentence(self) -> str:
        """Return the result as a sentence without a capital and a full stop."""
        before, after = (_share(c, self.positive_iou) for c in (self.before, self.after))
        means = [float(c.best_iou_O.mean()) if c.objects else 1.0 for c in (self.before, self.after)]
        if not self.changed:
            return (
                f"the anchors fit: {before:.1%} of the objects have a positive anchor, and fitted anchors gain less "
                f"than {WORTHWHILE:.1%}"
            )
        extra = ", with a P2 level," if len(self.after.levels) > len(self.before.levels) else ""
        return (
            f"fitted anchors{extra} give {after:.1%} of the objects a positive anchor, the original anchors "
            f"{before:.1%} (mean best IoU {means[1]:.2f}, originally {means[0]:.2f}): {self.flags()}"
        )


def fit_anchors(
    data: DetectionData,
    *,
    model_config: ModelConfig,
    match_config: MatchConfig,
    image_config: ImageConfig,
    seed: int = 0,
) -> FittedAnchors:
    """Fit anchor sizes, scales and ratios to the objects' sizes in the network's input.

    The search maximises the weighted share of objects that have an anchor with an IoU of at least `positive_iou`, plus
    half the weighted mean of the best IoU. Each object has the weight 1 / sqrt(objects of its class), so that the
    search does not trade rare classes for frequent ones. The numbers of scales and ratios stay. The levels stay too,
    unless a P2 level is needed (see `LEFT_FOR_P2`).

    Args:
        data: images and objects.
        model_config: the anchors to start from.
        match_config: the IoU thresholds of positive and negative anchors.
        image_config: the size of the network's input.
        seed: seed of the search; the same seed gives the same anchors.
    """
    settings = {"match_config": match_config, "image_config": image_config, "images": MOST_IMAGES}
    before = coverage(data, model_config=model_config, **settings)  # type: ignore[arg-type]
    objects = _Objects.of(data, image_config, np.random.default_rng(seed))
    if not len(objects.width_O):
        return FittedAnchors(
            model_config=model_config, before=before, after=before, positive_iou=match_config.positive_iou
        )
    best = _search(model_config, objects, match_config.positive_iou, seed)
    after = coverage(data, model_config=best, **settings)  # type: ignore[arg-type]
    if model_config.levels[0] == 3 and 1 - _share(after, match_config.positive_iou) > LEFT_FOR_P2:
        finer = dataclasses.replace(
            model_config,
            levels=(2, *model_config.levels),
            anchor_sizes=(model_config.anchor_sizes[0] / 2, *model_config.anchor_sizes),
        )
        finer = _search(finer, objects, match_config.positive_iou, seed)
        with_p2 = coverage(data, model_config=finer, **settings)  # type: ignore[arg-type]
        gain_of_p2 = _share(with_p2, match_config.positive_iou) - _share(after, match_config.positive_iou)
        if gain_of_p2 >= GAIN_OF_P2:
            best, after = finer, with_p2
    gain = _share(after, match_config.positive_iou) - _share(before, match_config.positive_iou)
    if gain < WORTHWHILE:
        best, after = model_config, before
    return FittedAnchors(model_config=best, before=before, after=after, positive_iou=match_config.positive_iou)


def _share(measured: Coverage, positive_iou: float) -> float:
    """Return the share of objects with an anchor of at least `positive_iou`; low-quality matches do not count."""
    return float((measured.best_iou_O >= positive_iou).mean()) if measured.objects else 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class _Objects:
    """Objects in input pixels: centres, sides, size (width, height) of the padded input, and weights with the sum 1."""

    x_O: Floats
    y_O: Floats
    width_O: Floats
    height_O: Floats
    padded_O2: Floats
    weight_O: Floats

    @classmethod
    def of(cls, data: DetectionData, image_config: ImageConfig, rng: np.random.Generator) -> _Objects:
        boxes, padded, labels = [], [], []
        for record in data.records:
            keep = ~record.crowd_G
            boxes_G4, size = input_boxes(record, image_config)
            boxes.append(boxes_G4.double().numpy()[keep])
            divisor = image_config.size_divisor
            padded.append(np.tile([-(-side // divisor) * divisor for side in size], (int(keep.sum()), 1)))
            labels.append(record.labels_G[keep])
        boxes_O4, padded_O2, label_O = np.concatenate(boxes), np.concatenate(padded), np.concatenate(labels)
        if len(boxes_O4) > MOST_OBJECTS:
            sample = rng.choice(len(boxes_O4), MOST_OBJECTS, replace=False)
            boxes_O4, padded_O2, label_O = boxes_O4[sample], padded_O2[sample], label_O[sample]
        weight_O = 1 / np.sqrt(np.bincount(label_O, minlength=1)[label_O])
        sides_O2 = boxes_O4[:, 2:] - boxes_O4[:, :2]
        return cls(
            x_O=(boxes_O4[:, 0] + boxes_O4[:, 2]) / 2,
            y_O=(boxes_O4[:, 1] + boxes_O4[:, 3]) / 2,
            width_O=sides_O2[:, 0],
            height_O=sides_O2[:, 1],
            padded_O2=padded_O2.astype(np.float64),
            weight_O=weight_O / max(weight_O.sum(), 1e-30),
        )


def best_ious(
    objects: _Objects,
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
        stride = 2.0**level
        dx_O, dy_O = (
            np.abs(c - np.clip(np.round(c / stride), 0, np.ceil(side / stride) - 1) * stride)
            for c, side in zip((objects.x_O, objects.y_O), objects.padded_O2.T, strict=True)
        )
        width_C, height_C = size * scale_C / root_C, size * scale_C * root_C
        common_OC = _common(objects.width_O, dx_O, width_C) * _common(objects.height_O, dy_O, height_C)
        area_O = objects.width_O * objects.height_O
        iou_OC = common_OC / (area_O[:, None] + (width_C * height_C)[None] - common_OC)
        best_O = np.maximum(best_O, iou_OC.max(axis=1))
    return best_O


def _common(side_O: Floats, distance_O: Floats, anchor_C: Floats) -> Floats:
    """Return the overlap length of two intervals whose centres are `distance_O` apart, (O, C)."""
    side, distance, anchor = side_O[:, None], distance_O[:, None], anchor_C[None]
    common: Floats = np.minimum(side / 2, distance + anchor / 2) - np.maximum(-side / 2, distance - anchor / 2)
    return common.clip(0)


def _search(config: ModelConfig, objects: _Objects, positive_iou: float, seed: int) -> ModelConfig:
    """Return the config with the best anchors of a random local search that accepts only improvements."""
    L, R = len(config.levels), len(config.anchor_ratios)
    rng = np.random.default_rng(seed)

    def unpack(state: Floats) -> tuple[Floats, Floats, Floats]:
        sizes, ratios = np.exp(state[:L]), np.exp(state[L : L + R])
        scales = np.exp(np.arange(len(config.anchor_scales)) * state[-1])
        return sizes, scales, ratios

    def score(state: Floats) -> float:
        sizes, scales, ratios = unpack(state)
        best_O = best_ious(objects, levels=config.levels, sizes=sizes, scales=scales, ratios=ratios)
        return float((objects.weight_O * ((best_O >= positive_iou) + 0.5 * best_O)).sum())

    steps = np.diff(np.log(config.anchor_scales))
    start = np.concatenate(
        [np.log(config.anchor_sizes), np.log(config.anchor_ratios), [steps.mean() if len(steps) else 0.0]]
    )
    shifts = [start + np.concatenate([np.full(L, octave * math.log(2)), np.zeros(R + 1)]) for octave in _OCTAVES]
    state = max(shifts, key=score)
    value = score(state)
    spread = np.concatenate([np.full(L, 0.4), np.full(R, 0.5), [0.15]])
    for step in range(STEPS):
        width = spread * (1 - 0.9 * step / STEPS)
        chosen = rng.random(len(state)) < 2 / len(state)
        proposal = state + np.where(chosen, rng.normal(0, 1, len(state)) * width, 0)
        proposal[:L] = np.maximum(proposal[:L], np.log([2.0**level for level in config.levels]))
        proposal[-1] = np.clip(proposal[-1], 0.05, 0.7)
        if chosen.any() and (proposed := score(proposal)) > value + 1e-9:
            state, value = proposal, proposed
    sizes, scales, ratios = unpack(state)
    return dataclasses.replace(
        config,
        anchor_sizes=tuple(float(f"{size:.3g}") for size in sizes),
        anchor_scales=tuple(round(float(scale), 3) for scale in scales),
        anchor_ratios=tuple(sorted(float(f"{ratio:.2g}") for ratio in ratios)),
    )


_OCTAVES: Final = tuple(np.arange(-2.5, 1.01, 0.25).tolist())
"""Shifts of the configured sizes that are tried as the start of the search, in octaves (powers of two)."""
