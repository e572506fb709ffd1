"""Train a set-up on fractions of the images: would more images help, and for which class?

The images of a fraction contain those of every smaller fraction with the same seed. All runs use about the same number
of training images in total, so that a small fraction is trained for more epochs and the runs have equal budgets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from retinanet.analysis.statistics import statistics
from retinanet.config import StudyConfig, to_dict, with_options
from retinanet.data import DetectionData
from retinanet.former_names import with_former_options
from retinanet.study.comparison import count, points_interval
from retinanet.study.cross_validation import only_set_up
from retinanet.study.extrapolation import FACTOR, FACTOR_TEXT, Extrapolation, extrapolate
from retinanet.study.outcomes import Outcome, Variant
from retinanet.study.parts import split_data, write_part
from retinanet.study.results import format_interval, markdown_table
from retinanet.study.runs import train_set_up
from retinanet.study.variants import train_options
from retinanet.train.output_files import report_progress

ENOUGH_OBJECTS: Final = 20
"""Minimum number of training objects of a class whose curve is extrapolated."""
CLASSES_NAMED: Final = 5
"""Maximum number of classes that the sentences name."""


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Results of training runs on fractions of the images.

    Args:
        config: options of the study.
        set_up: the set-up of all runs.
        images: number of training images of each fraction, ascending.
        outcomes: training runs on each fraction.
        train_objects: number of objects of each class in all training images.
        val: description of the validation data.
    """

    config: StudyConfig
    set_up: Variant
    images: tuple[int, ...]
    outcomes: tuple[Outcome, ...] = field(repr=False)
    train_objects: dict[str, int] = field(repr=False)
    val: str

    def overall(self) -> Extrapolation:
        """Return the expected gain of more images."""
        return extrapolate(self.images, [[run.ap for run in outcome.runs] for outcome in self.outcomes])

    def class_aps(self) -> dict[str, list[list[float]]]:
        """Return the AP of each run on each fraction, by class, rarest class first.

        Classes without objects in the validation data are left out.
        """
        found = {}
        for name in sorted(self.train_objects, key=lambda name: (self.train_objects[name], name)):
            aps = [[run.class_ap(name) for run in outcome.runs] for outcome in self.outcomes]
            known = [[ap for ap in values if ap is not None] for values in aps]
            if all(len(values) == len(outcome.runs) for values, outcome in zip(known, self.outcomes, strict=True)):
                found[name] = known
        return found

    def by_class(self) -> dict[str, Extrapolation]:
        """Return the expected gain of more images for each class with enough objects, by class."""
        return {
            name: extrapolate(self.images, aps)
            for name, aps in self.class_aps().items()
            if self.train_objects[name] >= ENOUGH_OBJECTS
        }

    def sentences(self) -> list[str]:
        """Return sentences about the gain of more images."""
        overall, most = self.overall(), self.images[-1]
        more = f"{FACTOR_TEXT.capitalize()} as many images ({round((FACTOR - 1) * most):,} more)"
        interval = f"95 % interval {points_interval(overall.low, overall.high)}"
        if overall.verdict == "gain":
            first = f"{more} would raise AP by about {100 * overall.gain:.1f} points ({interval})."
        elif overall.verdict == "flat":
            first = (
                f"The curve is flat: more images of this kind will hardly help. {more} would raise AP by at most "
                f"{100 * overall.high:.1f} points."
            )
        elif overall.parameters is not None:
            first = (
                f"The runs do not determine the curve: {more[0].lower()}{more[1:]} would raise AP by "
                f"{points_interval(overall.low, overall.high)} points. Use more seeds or longer training."
            )
        else:
            first = (
                "The runs do not determine the curve. An extrapolation needs 3 fractions, 2 seeds, and AP values that "
                "follow a saturating curve."
            )
        gains = {name: found for name, found in self.by_class().items() if found.verdict == "gain"}
        named = sorted(gains.items(), key=lambda item: -item[1].gain)[:CLASSES_NAMED]
        per_class = [
            f"{name}: {FACTOR_TEXT} as many images would raise its AP by about {100 * found.gain:.1f} points "
            f"(95 % interval {points_interval(found.low, found.high)})."
            for name, found in named
        ]
        few = [name for name in self.class_aps() if self.train_objects[name] < ENOUGH_OBJECTS]
        if few:
            names = ", ".join(few[:CLASSES_NAMED]) + (", ..." if len(few) > CLASSES_NAMED else "")
            per_class.append(f"Too few objects for an extrapolation (below {ENOUGH_OBJECTS}): {names}.")
        return [first, *per_class]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return titles and rows of the table of the fractions."""
        rows = [
            [
                f"{images:,}",
                f"{outcome.mean():.3f}",
                format_interval(outcome.interval()),
                f"{outcome.mean('AP50'):.3f}",
                f"{outcome.diverged} of {len(outcome.runs)}",
            ]
            for images, outcome in zip(self.images, self.outcomes, strict=True)
        ]
        return ["Training images", "AP", "95 % interval", "AP50", "Diverged"], rows

    def class_table(self) -> tuple[list[str], list[list[str]]]:
        """Return titles and rows of the table of the classes: mean AP on each fraction, and the expected gain."""
        titles = ["Class", "Training objects", *(f"AP, {count(images, 'image')}" for images in self.images)]
        gains = self.by_class()
        rows = [
            [
                name,
                f"{self.train_objects[name]:,}",
                *(f"{np.mean(values):.3f}" for values in aps),
                _gain_text(gains.get(name)),
            ]
            for name, aps in self.class_aps().items()
        ]
        return [*titles, f"Gain of {FACTOR_TEXT} as many images"], rows

    def to_json(self) -> dict[str, Any]:
        """Return options, runs, curves and sentences as plain values for JSON."""
        return {
            "val": self.val,
            "options": with_former_options(to_dict(self.config)),
            "set_up": {"name": self.set_up.name, "label": self.set_up.label, "options": self.set_up.options},
            "points": [
                {
                    "images": images,
                    "AP": outcome.mean(),
                    "runs": [
                        {"seed": run.seed, "seconds": run.seconds, "diverged": run.diverged, "metrics": run.metrics}
                        for run in outcome.runs
                    ],
                }
                for images, outcome in zip(self.images, self.outcomes, strict=True)
            ],
            "train_objects": self.train_objects,
            "extrapolation": self.overall().to_json(),
            "per_class": {name: found.to_json() for name, found in self.by_class().items()},
            "sentences": self.sentences(),
        }

    def markdown(self) -> str:
        """Return the table of the fractions and the table of the classes in Markdown."""
        return "\n".join(markdown_table(*table) for table in (self.table(), self.class_table()))


def learning_curve(config: StudyConfig) -> LearningCurve:
    """Train the set-up of a study on each fraction of the images with each seed.

    Raises:
        ConfigError: the study has several set-ups, or the data has too few images for a validation split.
        DataError: the data has faults.
    """
    set_up = only_set_up(config)
    _, _, train_data, val_data = split_data(config)
    folder = config.folder.output
    write_part(val_data, val_data.records, folder / "val.json")
    total = len(train_data.records)
    sizes = sorted({max(1, round(fraction * total)) for fraction in config.fractions})
    outcomes = {size: Outcome(variant=set_up, runs=()) for size in sizes}
    seeds = range(config.random.seed, config.random.seed + config.seeds)
    plan = [(seed, size) for seed in seeds for size in sizes]
    for number, (seed, size) in enumerate(plan, start=1):
        report_progress(f"\n[{number}/{len(plan)}] {set_up.label}, {count(size, 'image')}, seed {seed}")
        part = folder / f"train-{size}-seed{seed}.json"
        chosen = nested_order(train_data, seed)[:size]
        write_part(train_data, [train_data.records[i] for i in sorted(chosen)], part)
        options = train_options(config, part, folder / "val.json")
        if config.schedule.time_budget is None:
            options = with_options(options, epochs=max(1, round(config.schedule.epochs * total / size)))
        run = train_set_up(
            options,
            set_up,
            seed=seed,
            folder=folder / "runs" / f"{set_up.name}-{size}images-seed{seed}",
            keep_best=config.keep_checkpoints or (seed == config.random.seed and size == sizes[-1]),
        )
        outcomes[size] = Outcome(variant=set_up, runs=(*outcomes[size].runs, run))
    objects = statistics(train_data).objects_K.tolist()
    return LearningCurve(
        config=config,
        set_up=set_up,
        images=tuple(sizes),
        outcomes=tuple(outcomes.values()),
        train_objects=dict(zip(train_data.classes, objects, strict=True)),
        val=f"{len(val_data.records)} images with {val_data.num_objects} objects of {len(val_data.classes)} classes",
    )


def nested_order(data: DetectionData, seed: int) -> list[int]:
    """Return the images in random order, so that the first images are a subset with every class where possible.

    One random image of each class comes first, the rarest class first, unless an earlier image has the class.
    """
    order: list[int] = np.random.default_rng(seed).permutation(len(data.records)).tolist()
    images_of = [[i for i in order if k in data.records[i].labels_G] for k in range(len(data.classes))]
    first: list[int] = []
    seen: set[int] = set()
    for k in sorted(range(len(data.classes)), key=lambda k: len(images_of[k])):
        if k not in seen and images_of[k]:
            first.append(images_of[k][0])
            seen.update(data.records[images_of[k][0]].labels_G.tolist())
    return [*first, *(i for i in order if i not in set(first))]


def _gain_text(found: Extrapolation | None) -> str:
    if found is None:
        return "too few objects"
    if found.verdict == "undetermined":
        return "undetermined"
    return f"{100 * found.gain:+.1f} ({points_interval(found.low, found.high)})"
