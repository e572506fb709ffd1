"""Measure a dataset for `retinanet prescribe`: anchor coverage, class balance, object sizes, faults, loss of a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.auto_anchors import fit_anchors
from retinanet.analysis.class_balance import RARE_RATIO
from retinanet.analysis.coverage import coverage, input_boxes, training_coverage
from retinanet.analysis.data_findings import TINY, data_findings, split_findings
from retinanet.analysis.statistics import statistics
from retinanet.config import ASSIGNERS
from retinanet.data import cut_into_tiles
from retinanet.train.metrics_table import read_metrics
from retinanet.train.run_data import with_fitted_anchors

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.analysis.finding import Finding
    from retinanet.config import TrainConfig
    from retinanet.data import DetectionData

RARE_BELOW: Final = 20
"""Number of objects below which a class counts as rare, if another class has `RARE_RATIO` times as many objects."""
RARER_RATIO: Final = 20
"""A class is rare, however many objects it has, if another class has this many times as many objects."""
LEARNT: Final = 0.03
"""AP below which a run has hardly begun to learn, so that its loss and its differences show little."""
COVERAGE_IMAGES: Final = 500
"""Maximum number of images on which other anchors and assigners are measured."""


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Number of objects and images of a class in the training data, and of its objects in the validation data."""

    name: str
    objects: int
    images: int
    val_objects: int


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Measurements of a dataset and of the default options, made before candidates are compared.

    All shares are shares of the training objects, from 0 to 1. Sizes are those of the network's input.

    Args:
        images, val_images: number of images.
        objects: number of training objects.
        classes: counts of each class, by class id.
        faults: number of invalid images and annotations that were left out.
        findings: observations of `retinanet check` on the annotations.
        unreached: share of the objects without a positive anchor, with the default options.
        unreached_side: median side of these objects, input pixels; 0 without such objects.
        unreached_if_fitted: this share with anchors fitted to the data; None if fitting changes nothing.
        fitted: the fitted anchors as flags; "" if fitting changes nothing.
        adds_p2: whether the fitted anchors add feature level P2.
        unreached_by: this share for each other assigner that could be used.
        tiny: share of the objects with a side below 8 input pixels, the stride of the finest default level.
        tiny_in_tiles: this share if the images were cut into tiles that are not reduced.
        reduction: median factor by which images are reduced to the size of the network's input.
        easy_background: share of the classification loss in easy negatives at the end of a default run; None before.
        background: share of the classification loss in all negatives; None before a default run.
        effective_negatives: number of equally weighted negatives per image with the gradient of the background; None
            before a default run.
    """

    images: int
    val_images: int
    objects: int
    classes: tuple[ClassCount, ...]
    faults: int = 0
    findings: tuple[str, ...] = ()
    unreached: float = 0.0
    unreached_side: float = 0.0
    unreached_if_fitted: float | None = None
    fitted: str = ""
    adds_p2: bool = False
    unreached_by: dict[str, float] = dataclasses.field(default_factory=dict)
    tiny: float = 0.0
    tiny_in_tiles: float = 0.0
    reduction: float = 1.0
    easy_background: float | None = None
    background: float | None = None
    effective_negatives: float | None = None

    @property
    def rare(self) -> tuple[ClassCount, ...]:
        """The rare classes, see `RARE_BELOW` and `RARER_RATIO`. A class without training objects is not rare."""
        most = max((count.objects for count in self.classes), default=0)

        def is_rare(n: int) -> bool:
            return n > 0 and (n * RARER_RATIO <= most or (n < RARE_BELOW and n * RARE_RATIO <= most))

        return tuple(count for count in self.classes if is_rare(count.objects))

    @property
    def measurable_rare(self) -> tuple[str, ...]:
        """Names of the rare classes with validation objects."""
        return tuple(count.name for count in self.rare if count.val_objects)

    def to_json(self) -> dict[str, Any]:
        """Return all measurements as plain values for JSON."""
        return {**dataclasses.asdict(self), "rare": [count.name for count in self.rare]}

    def sentences(self) -> list[str]:
        """Return the measurements in words."""
        most = max(self.classes, key=lambda count: count.objects)
        sentences = [
            f"{self.images:,} training images with {self.objects:,} objects of {len(self.classes)} classes; "
            f"{self.val_images:,} validation images.",
            f"{self.unreached:.1%} of the objects have no positive anchor at the size of the network's input.",
            f"{self.tiny:.1%} of the objects have a side below {TINY:g} pixels in the network's input.",
        ]
        if self.faults:
            sentences.append(f"{self.faults:,} faults of the data were left out (--skip-invalid).")
        if self.rare:
            rare = ", ".join(f"{count.name} {count.objects} ({count.val_objects} in val)" for count in self.rare)
            sentences.append(f"Rare classes: {rare}. {most.name} has {most.objects:,} objects.")
        else:
            sentences.append(f"No class is rare: the most frequent class, {most.name}, has {most.objects:,} objects.")
        if self.background is not None and self.easy_background is not None:
            sentences.append(
                f"At the end of a default run, the background has {self.background:.0%} of the classification loss, "
                f"easy background {self.easy_background:.0%}; the effective number of negatives is "
                f"{self.effective_negatives:,.0f} per image."
            )
        return sentences


def measure(train: DetectionData, val: DetectionData, config: TrainConfig) -> Measurements:
    """Measure the data with the options of a training run. The images are not opened.

    Args:
        train: training data; the options may cut it into tiles.
        val: validation data with the class list of `train`.
        config: the default options that candidates are compared with.
    """
    counts, val_counts = statistics(train), statistics(val)
    findings: list[Finding] = [*data_findings(train), *split_findings(train, val)]
    images, faults = len(train.records), len(train.faults) + len(val.faults)
    train = cut_into_tiles(train, config.tiling).data
    config, _ = with_fitted_anchors(train, config)
    before = training_coverage(train, config)
    sides_O2 = np.stack([before.width_O, before.height_O], axis=1)
    lost_O = ~before.reached_O
    fitted = fit_anchors(
        train,
        model_config=config.model,
        match_config=config.matching,
        image_config=config.image,
        seed=config.random.seed,
    )
    others = [name for name in ("atss",) if name in ASSIGNERS and config.matching.assigner == "iou"]
    return Measurements(
        images=images,
        val_images=len(val.records),
        objects=counts.objects,
        classes=tuple(
            ClassCount(name=name, objects=int(n), images=int(p), val_objects=int(v))
            for name, n, p, v in zip(
                train.classes, counts.objects_K, counts.images_K, val_counts.objects_K, strict=True
            )
        ),
        faults=faults,
        findings=tuple(finding.what for finding in findings),
        unreached=1 - before.share,
        unreached_side=float(np.median(np.sqrt(sides_O2[lost_O].prod(axis=1)))) if lost_O.any() else 0.0,
        unreached_if_fitted=1 - fitted.after.share if fitted.changed else None,
        fitted=fitted.flags(),
        adds_p2=fitted.model_config.levels[0] == 2 < config.model.levels[0],
        unreached_by={
            name: 1
            - coverage(
                train,
                model_config=config.model,
                match_config=dataclasses.replace(config.matching, assigner=name),
                image_config=config.image,
                images=COVERAGE_IMAGES,
            ).share
            for name in others
        },
        **_sizes(train, config),
    )


def with_loss_of_run(measured: Measurements, folder: Path) -> Measurements:
    """Return the measurements with the shares of the loss at the end of a default run, from its imbalance.csv."""
    rows = read_metrics(folder / "imbalance.csv")
    if not rows:
        return measured
    easy, hard = rows[-1]["easy_negative_loss"] or 0.0, rows[-1]["hard_negative_loss"] or 0.0
    return dataclasses.replace(
        measured,
        easy_background=easy,
        background=easy + hard,
        effective_negatives=rows[-1]["effective_negatives"] or 0.0,
    )


def _sizes(train: DetectionData, config: TrainConfig) -> dict[str, float]:
    """Return the shares of tiny objects in whole images and in tiles, and the reduction of the images."""
    whole, original, reductions = [], [], []
    for record in train.records:
        boxes_G4, (width, _) = input_boxes(record, config.image)
        keep_G = ~record.crowd_G
        whole.append((boxes_G4[:, 2:] - boxes_G4[:, :2]).double().numpy()[keep_G].min(axis=1, initial=np.inf))
        original.append((record.boxes_G4[:, 2:] - record.boxes_G4[:, :2])[keep_G].min(axis=1, initial=np.inf))
        reductions.append(record.width / width)
    whole_O, original_O = np.concatenate(whole), np.concatenate(original)
    return {
        "tiny": float((whole_O < TINY).mean()) if len(whole_O) else 0.0,
        "tiny_in_tiles": float((original_O < TINY).mean()) if len(original_O) else 0.0,
        "reduction": float(np.median(reductions)),
    }
