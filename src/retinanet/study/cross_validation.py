"""Cross-validate a set-up: each image is detected by a network that was not trained on it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from retinanet.config import StudyConfig, to_dict
from retinanet.data import DetectionData, load_train
from retinanet.data.split import cross_validation_folds
from retinanet.errors import ConfigError
from retinanet.evaluate import evaluate_results
from retinanet.former_names import with_former_options
from retinanet.study.outcomes import Run, Variant
from retinanet.study.parts import write_part
from retinanet.study.results import markdown_table
from retinanet.study.runs import train_set_up
from retinanet.study.variants import train_options, variants
from retinanet.train.output_files import report_progress, write_output

OUT_OF_FOLD: Final = "out_of_fold.json"
"""Name of the file with the detections of all images, as COCO results."""

DATA_FILE: Final = "data.json"
"""Name of the file with the ground truth of all images, as COCO annotations."""


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Results of a cross-validation.

    Args:
        config: options of the study.
        set_up: the set-up that was trained on each fold.
        runs: training run of each fold.
        images: number of validation images of each fold.
        data: all images.
        metrics: `Metrics.to_json()` of all images, pooled over the folds.
    """

    config: StudyConfig
    set_up: Variant
    runs: tuple[Run, ...]
    images: tuple[int, ...]
    data: DetectionData = field(repr=False)
    metrics: dict[str, Any] = field(repr=False)

    @property
    def out_of_fold(self) -> Path:
        """Path of the detections of all images, as COCO results."""
        return self.config.folder.output / OUT_OF_FOLD

    @property
    def detections(self) -> list[dict[str, Any]]:
        """Detections of all images, as COCO results."""
        return [row for run in self.runs for row in run.detections()]

    def sentences(self) -> list[str]:
        """Return the result in sentences."""
        aps = [run.ap for run in self.runs]
        sentences = [
            f"AP out of fold: mean of {len(aps)} folds {np.mean(aps):.3f} (lowest {min(aps):.3f}, highest "
            f"{max(aps):.3f}); {self.metrics['AP']:.3f} over the detections of all {len(self.data.records):,} images.",
        ]
        diverged = [f"fold {number}" for number, run in enumerate(self.runs, start=1) if run.diverged]
        if diverged:
            sentences.append(f"Training diverged on {', '.join(diverged)}: its images have no detections.")
        sentences.append(
            f"{self.out_of_fold} holds the detections of each image by the network that was not trained on it. "
            f"`retinanet check {self.out_of_fold} {self.config.folder.output / DATA_FILE} --hard` lists probable "
            "annotation errors."
        )
        return sentences

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return titles and rows of the table of the folds; the last row holds all images."""
        metrics = [*(run.metrics for run in self.runs), self.metrics]
        names = [*(f"fold {number}" for number in range(1, len(self.runs) + 1)), "all images"]
        rows = [
            [name, f"{count:,}", *(f"{found.get(key, 0.0):.3f}" for key in ("AP", "AP50", "AP75"))]
            for name, count, found in zip(names, [*self.images, sum(self.images)], metrics, strict=True)
        ]
        return ["Fold", "Images", "AP", "AP50", "AP75"], rows

    def to_json(self) -> dict[str, Any]:
        """Return options, folds and sentences as plain values for JSON."""
        return {
            "options": with_former_options(to_dict(self.config)),
            "set_up": {"name": self.set_up.name, "label": self.set_up.label, "options": self.set_up.options},
            "AP": float(np.mean([run.ap for run in self.runs])),
            "pooled": self.metrics,
            "folds": [
                {"images": count, "seconds": run.seconds, "diverged": run.diverged, "metrics": run.metrics}
                for count, run in zip(self.images, self.runs, strict=True)
            ],
            "sentences": self.sentences(),
        }

    def markdown(self) -> str:
        """Return the table of the folds in Markdown."""
        return markdown_table(*self.table())


def cross_validate(config: StudyConfig) -> CrossValidation:
    """Train the set-up of a study once for each fold, and write the detections of all images (out_of_fold.json).

    Raises:
        ConfigError: the study has several set-ups, or the data has too few images for the folds.
        DataError: the data has faults.
    """
    assert config.cross_validate is not None  # noqa: S101
    set_up = only_set_up(config)
    data = load_train(config)
    folds, division = cross_validation_folds(
        data,
        config.cross_validate,
        group_by=config.grouping.group_by,
        seed=config.random.seed,
        workers=max(1, config.loading.workers),
    )
    for sentence in division.sentences():
        report_progress(sentence)
    runs = []
    for number, parts in enumerate(folds, start=1):
        paths = {name: config.folder.output / f"fold{number}-{name}.json" for name in parts}
        for name, part in parts.items():
            write_part(data, part.records, paths[name])
        report_progress(f"\n[{number}/{len(folds)}] {set_up.label}, fold {number}")
        runs.append(
            train_set_up(
                train_options(config, paths["train"], paths["val"]),
                set_up,
                seed=config.random.seed,
                folder=config.folder.output / "runs" / f"{set_up.name}-fold{number}",
                keep_best=config.keep_checkpoints or number == 1,
            )
        )
    write_part(data, data.records, config.folder.output / DATA_FILE)
    detections = [row for run in runs for row in run.detections()]
    write_output(config.folder.output / OUT_OF_FOLD, json.dumps(detections).encode())
    return CrossValidation(
        config=config,
        set_up=set_up,
        runs=tuple(runs),
        images=tuple(len(parts["val"].records) for parts in folds),
        data=data,
        metrics=evaluate_results(data.to_coco(), detections).to_json(),
    )


def only_set_up(config: StudyConfig) -> Variant:
    """Return the set-up of a study that has one. Raises `ConfigError` for several set-ups."""
    found = variants(config)
    if len(found) > 1:
        names = ", ".join(variant.label for variant in found)
        raise ConfigError(
            f"expected one set-up with cross_validate or fractions, found {len(found)}: {names}. Give the options of "
            "the set-up as for `retinanet train`, or compare the set-ups in a study of their own"
        )
    return found[0]
