"""Train set-ups on the user's data, with equal budgets and several seeds, and compare the results.

Every run is an ordinary training run by `train.fit`. The study chooses the options, reads the files that the runs
wrote, and compares. The same call continues an interrupted study: it reads the results of finished runs and resumes an
unfinished run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from retinanet.analysis.statistics import statistics
from retinanet.config import StudyConfig, resolve, with_options
from retinanet.data import DetectionData
from retinanet.evaluate.bootstrap import image_interval
from retinanet.study.cross_validation import CrossValidation, cross_validate, only_set_up
from retinanet.study.learning_curve import LearningCurve, learning_curve
from retinanet.study.outcomes import Outcome, Run, Variant
from retinanet.study.parts import split_data
from retinanet.study.results import Study
from retinanet.study.runs import RUN_FILE, train_set_up
from retinanet.study.stored_options import store_options
from retinanet.study.variants import train_options, variants
from retinanet.train.output_files import report_progress, write_output
from retinanet.train.run_lock import locked_run_folder

COMPARED: Final = (
    *("losses", "without_prior", "alphas", "gammas", "assigners", "samplers", "set_ups", "seeds", "fractions"),
    "keep_checkpoints",
)
"""Options that choose the runs of a study. They may change when a study is continued."""
StudyResult = Study | CrossValidation | LearningCurve
"""Result of a study: set-ups compared, one set-up cross-validated, or one set-up on fractions of the images."""


def study(data: Path, config: StudyConfig | None = None, **options: Any) -> StudyResult:
    """Train all set-ups on `data`, and write the results into `config.folder.output` (study.json, study.md).

    With `fractions` or `cross_validate`, return the learning curve or the cross-validation of one set-up.

    Args:
        data: training data, see `data.read`.
        config: all options as an object; give either `config` or `options`.
        options: options by name, as the flags of `retinanet study`.

    Raises:
        ConfigError: the output folder holds a study with other options or is in use by another process, or the data has
            too few images for a split.
        DataError: the data has faults.
    """
    config = config or resolve(StudyConfig, options)
    with locked_run_folder(config.folder.output):
        return _study(with_options(config, train=data))


def _study(config: StudyConfig) -> StudyResult:
    """Train in a locked output folder. Invalid options of a set-up are reported before anything is written."""
    single = config.cross_validate is not None or bool(config.fractions)
    set_ups = [only_set_up(config)] if single else variants(config)
    store_options(config, what="study", free=COMPARED)
    result: StudyResult
    if config.cross_validate is not None:
        result = cross_validate(config)
    elif config.fractions:
        result = learning_curve(config)
    else:
        result = compare(config, set_ups)
    write_output(config.folder.output / "study.json", json.dumps(result.to_json(), indent=2).encode())
    write_output(config.folder.output / "study.md", result.markdown().encode())
    return result


def compare(config: StudyConfig, set_ups: Sequence[Variant]) -> Study:
    """Train each set-up with each seed, and compare the others with the first."""
    train, val, train_data, val_data = split_data(config)
    plan = [
        (variant, seed) for seed in range(config.random.seed, config.random.seed + config.seeds) for variant in set_ups
    ]
    base = train_options(config, train, val)
    start, finished, runs = time.monotonic(), 0, dict[str, list[Run]]()
    for number, (variant, seed) in enumerate(plan, start=1):
        folder = config.folder.output / "runs" / f"{variant.name}-seed{seed}"
        is_new = not (folder / RUN_FILE).exists()
        note = "" if is_new else ": finished earlier"
        report_progress(f"\n[{number}/{len(plan)}] {variant.label}, seed {seed}{note}")
        keep = config.keep_checkpoints or seed == config.random.seed
        runs.setdefault(variant.name, []).append(train_set_up(base, variant, seed=seed, folder=folder, keep_best=keep))
        finished += is_new
        if is_new and number < len(plan):
            left = (time.monotonic() - start) / finished * (len(plan) - number)
            report_progress(f"about {left / 60:.0f} minutes until the study is finished")
    outcomes = [Outcome(variant=variant, runs=tuple(runs[variant.name])) for variant in set_ups]
    return Study(
        config=config,
        outcomes=tuple(outcomes),
        train=_describe(train_data),
        val=_describe(val_data),
        val_data=val_data,
        train_objects=dict(zip(train_data.classes, statistics(train_data).objects_K.tolist(), strict=True)),
        image_intervals=_image_intervals(outcomes, val_data),
    )


def _image_intervals(outcomes: Sequence[Outcome], val_data: DetectionData) -> dict[str, tuple[float, float]]:
    """Return the interval of each set-up's difference to the first over resampled images, by name of the set-up."""
    if len(outcomes) < 2:
        return {}
    report_progress("comparing the set-ups on resampled validation images")
    truth = val_data.to_coco()
    reference, *others = outcomes
    references = [run.detections() for run in reference.runs]
    return {
        outcome.variant.name: image_interval(truth, [run.detections() for run in outcome.runs], references)
        for outcome in others
    }


def _describe(data: DetectionData) -> str:
    return f"{len(data.records)} images with {data.num_objects} objects of {len(data.classes)} classes"
