"""Compare two models on the same images: differences of their metrics with intervals, and the objects that one finds.

The intervals come from a paired bootstrap over the images (hotcoco): each resample draws the same images for both
models. They show how much a difference depends on the choice of the images, and not the chance of training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import hotcoco
import numpy as np

from retinanet.config import CompareConfig, EvaluateConfig, resolve, section_from_dict, to_dict
from retinanet.data import load
from retinanet.errors import ConfigError
from retinanet.evaluate.coco import NOT_COMPUTED, coco_eval
from retinanet.evaluate.evaluation import Evaluation, evaluate
from retinanet.evaluate.per_image import best_threshold, items_from_results, match_detections
from retinanet.evaluate.speed import milliseconds_per_image
from retinanet.predict.loading import load_with_options
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    from retinanet.data import DetectionData

METRICS: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""Compared metrics of the dataset, and of its small, medium and large objects."""
CLASS_METRICS: Final = ("AP", "AP50")
"""Compared metrics of each class."""

CONFIDENCE: Final = 0.99
"""Confidence of the intervals. A comparison has many rows, and 5 % of these would differ by chance at 95 %."""

Rows = Sequence[Mapping[str, Any]]
Verdict = Literal["higher", "lower", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of two models.

    Args:
        metric: name of the metric.
        label: name of the class; "" for all classes.
        first, second: value of each model.
        low, high: 99 % interval of the difference, second minus first.
    """

    metric: str
    label: str = ""
    first: float
    second: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The difference, second minus first."""
        return self.second - self.first

    @property
    def verdict(self) -> Verdict:
        """Whether the second model's metric is higher or lower: its interval does not contain 0."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "unclear"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        return {**dataclasses.asdict(self), "difference": self.mean, "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class FoundObjects:
    """Objects that two models find at their thresholds with the highest F1.

    Args:
        thresholds: threshold of each model.
        both, neither: number of objects that both models find, and that none finds.
        only_first, only_second: (index of the image, index of the object) of the objects that one model finds.
    """

    thresholds: tuple[float, float]
    both: int
    neither: int
    only_first: tuple[tuple[int, int], ...]
    only_second: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedModel:
    """A model with its detections.

    Args:
        name: name in tables, unique among the compared models.
        path: checkpoint, exported model or COCO results file.
        evaluation: metrics and detections.
        milliseconds: median time of an image, from its file to its detections; None for a results file.
        differences: differences to the first model; empty for the first model.
        found: objects that this model and the first one find; None for the first model.
    """

    name: str
    path: Path
    evaluation: Evaluation
    milliseconds: float | None
    differences: tuple[Difference, ...] = ()
    found: FoundObjects | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelComparison:
    """Two or more models on the same images. The first one is the reference."""

    data: DetectionData
    models: tuple[ComparedModel, ...]

    def sentences(self) -> list[str]:
        """Return a sentence about AP, about the objects and about the speed of each further model."""
        first, sentences = self.models[0], []
        for model in self.models[1:]:
            ap = model.differences[0]
            interval = f"{ap.mean:+.3f} (99 % interval {ap.low:+.3f} to {ap.high:+.3f})"
            if ap.verdict == "unclear":
                sentences.append(f"AP of {model.name} and {first.name} does not differ clearly: {interval}.")
            else:
                sentences.append(f"AP of {model.name} is {ap.verdict} than AP of {first.name}: {interval}.")
            if (found := model.found) is not None:
                sentences.append(
                    f"Both find {found.both:,} objects, neither {found.neither:,}; only {first.name} "
                    f"{len(found.only_first):,}, only {model.name} {len(found.only_second):,} (thresholds "
                    f"{found.thresholds[0]:g} and {found.thresholds[1]:g}, those with the highest F1)."
                )
        timed = [f"{model.name} {model.milliseconds:.0f}" for model in self.models if model.milliseconds is not None]
        if timed:
            sentences.append(f"Milliseconds per image: {', '.join(timed)}.")
        return sentences

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain values for JSON."""
        ids = [record.image_id for record in self.data.records]

        def places(objects: Sequence[tuple[int, int]]) -> list[dict[str, int]]:
            return [{"image_id": ids[image], "object": g} for image, g in objects]

        return {
            "models": [
                {
                    "name": model.name,
                    "path": str(model.path),
                    "metrics": model.evaluation.metrics.to_json(),
                    "milliseconds_per_image": model.milliseconds,
                    "differences": [difference.to_json() for difference in model.differences],
                    "objects": None
                    if model.found is None
                    else {
                        **dataclasses.asdict(model.found),
                        "only_first": places(model.found.only_first),
                        "only_second": places(model.found.only_second),
                    },
                }
                for model in self.models
            ],
            "sentences": self.sentences(),
        }


def column_titles(found: ModelComparison, model: ComparedModel) -> list[str]:
    """Return the column titles of the table of differences."""
    return ["Metric", found.models[0].name, model.name, "Difference", "99 % interval", "Verdict"]


def difference_rows(model: ComparedModel) -> list[list[str]]:
    """Return the table of differences between a model and the first one as text."""
    return [
        [
            f"{d.metric} of {d.label}" if d.label else d.metric,
            f"{d.first:.3f}",
            f"{d.second:.3f}",
            f"{d.mean:+.3f}",
            f"{d.low:+.3f} to {d.high:+.3f}",
            d.verdict,
        ]
        for d in model.differences
    ]


def compare(
    models: Sequence[Path | str],
    config: CompareConfig | None = None,
    *,
    progress: ProgressBar = no_progress_bar,
    **options: Any,
) -> ModelComparison:
    """Compare models on a dataset: `compare(["a.ckpt", "b.onnx"], data="test.json")`.

    Args:
        models: two or more checkpoints, exported models or COCO results files. The first one is the reference.
        config: all options as an object; give either `config` or `options`.
        options: options by name, as the flags of `retinanet compare`.
        progress: function that opens a progress bar.

    Raises:
        ConfigError: fewer than two models are given.
        EvaluationError: the results of a model do not fit the data.
        DataError: the data has faults.
    """
    config = config or resolve(CompareConfig, options)
    paths = [Path(model) for model in models]
    if len(paths) < 2:
        raise ConfigError(f"expected two models or more, found {len(paths)}")
    values = {**to_dict(config), "report": None, "json": None}
    evaluations = [evaluate(path, section_from_dict(EvaluateConfig, values), progress=progress) for path in paths]
    data = load(
        config.data,
        images=config.dataset.selection.images,
        skip_invalid=config.dataset.selection.skip_invalid,
        open_images=False,
        split="val",
        **config.dataset.reading,
    )
    times = _speed(paths, data, config)
    found: list[ComparedModel] = []
    for path, name, evaluation in zip(paths, _names(paths), evaluations, strict=True):
        further: dict[str, Any] = {}
        if found:
            results = (evaluations[0].results, evaluation.results)
            further = {
                "differences": tuple(differences(data, *results, resamples=config.resamples, seed=config.random.seed)),
                "found": found_objects(data, *results),
            }
        found.append(
            ComparedModel(name=name, path=path, evaluation=evaluation, milliseconds=times.get(path), **further)
        )
    return ModelComparison(data=data, models=tuple(found))


def differences(
    data: DetectionData, first: Rows, second: Rows, *, resamples: int = 1000, seed: int = 0, classes: bool = True
) -> list[Difference]:
    """Return the differences of `METRICS`, and of `CLASS_METRICS` for each class with objects, in the data's order.

    Metrics without objects are left out.

    Args:
        data: images and objects.
        first, second: COCO results of two models, with the image and category ids of `data`.
        resamples: number of resamples of the images.
        seed: seed of the resamples.
        classes: whether to compare each class, too.
    """
    truth = data.to_coco()
    found = _differences(truth, first, second, METRICS, resamples=resamples, seed=seed)
    if len(data.classes) < 2 or not classes:
        return found
    for name, category in zip(data.classes, truth["categories"], strict=True):
        own_first, own_second = (
            [row for row in rows if row["category_id"] == category["id"]] for rows in (first, second)
        )
        annotations = [row for row in truth["annotations"] if row["category_id"] == category["id"]]
        part = {**truth, "categories": [category], "annotations": annotations}
        found += _differences(part, own_first, own_second, CLASS_METRICS, label=name, resamples=resamples, seed=seed)
    return found


def _differences(
    truth: dict[str, Any],
    first: Rows,
    second: Rows,
    metrics: Sequence[str],
    *,
    label: str = "",
    resamples: int,
    seed: int,
) -> list[Difference]:
    if not truth["annotations"]:
        return []
    reference, run = (coco_eval(truth, [dict(row) for row in rows]) for rows in (first, second))
    found = hotcoco.compare(reference, run, n_bootstrap=resamples, seed=seed, confidence=CONFIDENCE)
    return [
        Difference(
            metric=metric,
            label=label,
            first=float(found["metrics_a"][metric]),
            second=float(found["metrics_b"][metric]),
            low=float(found["ci"][metric]["lower"]),
            high=float(found["ci"][metric]["upper"]),
        )
        for metric in metrics
        if found["metrics_a"][metric] != NOT_COMPUTED
    ]


def found_objects(data: DetectionData, first: Rows, second: Rows) -> FoundObjects:
    """Return which objects each model finds, at its threshold with the highest F1."""
    matched, thresholds = [], []
    for rows in (first, second):
        items = items_from_results(data, rows)
        thresholds.append(best_threshold(items))
        matched.append([match_detections(item, thresholds[-1]).matched_G for item in items])
    places: dict[tuple[bool, bool], list[tuple[int, int]]] = {}
    for image, (record, first_G, second_G) in enumerate(zip(data.records, *matched, strict=True)):
        for g in np.flatnonzero(~record.crowd_G).tolist():
            places.setdefault((bool(first_G[g]), bool(second_G[g])), []).append((image, g))
    return FoundObjects(
        thresholds=(thresholds[0], thresholds[1]),
        both=len(places.get((True, True), ())),
        neither=len(places.get((False, False), ())),
        only_first=tuple(places.get((True, False), ())),
        only_second=tuple(places.get((False, True), ())),
    )


def _speed(paths: Sequence[Path], data: DetectionData, config: CompareConfig) -> dict[Path, float]:
    """Return the milliseconds per image of each model, without results files."""
    images = [record.path for record in data.records if record.path.is_file()][: config.timed_images]
    networks = [path for path in paths if path.suffix.lower() != ".json"]
    if not images or not networks:
        return {}
    detectors = [load_with_options(path, config) for path in networks]
    return dict(zip(networks, milliseconds_per_image(detectors, images, config.tiling), strict=True))


def _names(paths: Sequence[Path]) -> list[str]:
    """Return a short name of each path: its file name, or its last folder that differs from those of the others."""
    reversed_parts = [path.absolute().parts[::-1] for path in paths]
    for names in zip(*reversed_parts, strict=False):
        if len(set(names)) == len(names):
            return list(names)
    return [f"{number}: {path}" for number, path in enumerate(paths, 1)]
