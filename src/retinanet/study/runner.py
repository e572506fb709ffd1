"""Each loss trained on the user's own data, with equal budgets and several seeds, and what the numbers support.

Every run is an ordinary training by `train.fit`; the study only chooses the options, reads the files that the runs
wrote, and compares. A study that was stopped goes on where it was: finished runs are read, a begun one is resumed.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import shutil
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from retinanet.config import StudyConfig, TrainConfig, resolve, section_from_dict, to_dict, with_options
from retinanet.data import DetectionData, load_both, load_train
from retinanet.errors import ConfigError
from retinanet.study.results import EARLY_STEP, Outcome, Run, Study, Variant
from retinanet.study.variants import variants
from retinanet.train import NonFiniteError, fit
from retinanet.train.metrics_table import read_metrics
from retinanet.train.output_files import report_progress, write_output

VAL_SHARE: Final = 0.2


def study(data: Path, config: StudyConfig | None = None, **options: Any) -> Study:
    """Train all set-ups on `data`, and write the numbers into `config.folder.output` (study.json, study.md).

    Args:
        data: what to train on; see `data.read`.
        config: all options at once,
        options: or by name, as the flags of `retinanet study`.

    Raises:
        ConfigError: an output folder that holds a study with other options.
        DataError: faults in the data.
    """
    config = config or resolve(StudyConfig, options)
    config = dataclasses.replace(config, train=data)
    _claim(config)
    train, val, train_data, val_data = _split(config)
    outcomes = []
    plan = [
        (variant, seed)
        for seed in range(config.random.seed, config.random.seed + config.seeds)
        for variant in variants(config)
    ]
    start, done, runs = time.monotonic(), 0, dict[str, list[Run]]()
    for number, (variant, seed) in enumerate(plan, start=1):
        folder = config.folder.output / "runs" / f"{variant.name}-seed{seed}"
        fresh = not (folder / "run.json").exists()
        known = "" if fresh else ": done before"
        report_progress(f"\n[{number}/{len(plan)}] {variant.label}, seed {seed}{known}")
        runs.setdefault(variant.name, []).append(_run(config, variant, seed, folder, train, val))
        done += fresh
        if fresh and number < len(plan):
            left = (time.monotonic() - start) / done * (len(plan) - number)
            report_progress(f"about {left / 60:.0f} minutes left for the study")
    outcomes = [Outcome(variant=variant, runs=tuple(runs[variant.name])) for variant in variants(config)]
    found = Study(
        config=config,
        outcomes=tuple(outcomes),
        train=_describe(train_data),
        val=_describe(val_data),
        val_data=val_data,
    )
    write_output(config.folder.output / "study.json", json.dumps(found.to_json(), indent=2).encode())
    write_output(config.folder.output / "study.md", found.markdown().encode())
    return found


def _claim(config: StudyConfig) -> None:
    """Write the options down, or refuse a folder whose study had others: its runs would not be comparable."""
    path = config.folder.output / "options.json"
    free = {"output", "losses", "without_prior", "alphas", "gammas", "seeds", "keep_checkpoints", "workers"}
    free |= {"overwrite", "resume", "device", "devices"}
    mine = {name: value for name, value in to_dict(config).items() if name not in free}
    if config.existing.overwrite and (config.folder.output / "runs").exists():
        shutil.rmtree(config.folder.output / "runs")
    elif path.exists():
        before = json.loads(path.read_text())
        changed = [name for name in mine if mine[name] != before.get(name)]
        if changed:
            said = ", ".join(f"{name} was {before.get(name)}, is {mine[name]}" for name in changed)
            raise ConfigError(
                f"{config.folder.output} holds a study with other options ({said}): another folder, or --overwrite"
            )
    config.folder.output.mkdir(parents=True, exist_ok=True)
    write_output(path, json.dumps(mine, indent=2).encode())


def _split(config: StudyConfig) -> tuple[Path, Path, DetectionData, DetectionData]:
    """Return both datasets; without `val`, a fifth of the images, chosen by the seed, is kept for it."""
    if config.validation.val is not None:
        train, val = load_both(section_from_dict(TrainConfig, to_dict(config)))
        return config.train, config.validation.val, train, val
    data = load_train(config)
    order = np.random.default_rng(config.random.seed).permutation(len(data.records))
    count = max(1, round(VAL_SHARE * len(order)))
    if count >= len(order):
        raise ConfigError(f"{config.train} has {len(order)} images: too few to keep some for validation; give --val")
    parts = {"val": sorted(order[:count].tolist()), "train": sorted(order[count:].tolist())}
    paths, sets = {}, {}
    for name, chosen in parts.items():
        sets[name] = dataclasses.replace(data, records=tuple(data.records[i] for i in chosen), faults=())
        content = sets[name].to_coco()
        for image, i in zip(content["images"], chosen, strict=True):
            image["file_name"] = str(data.records[i].path.absolute())
        paths[name] = config.folder.output / f"{name}.json"
        write_output(paths[name], json.dumps(content).encode())
    return paths["train"], paths["val"], sets["train"], sets["val"]


def _run(config: StudyConfig, variant: Variant, seed: int, folder: Path, train: Path, val: Path) -> Run:
    """Train one set-up with one seed, or read what became of it before."""
    done = folder / "run.json"
    if not done.exists():
        options = section_from_dict(TrainConfig, {**to_dict(config), "train": train, "val": val, "output": folder})
        resumable = (folder / "last.ckpt").exists()
        options = with_options(
            options,
            **variant.options,
            seed=seed,
            evaluate_every=config.schedule.epochs,
            resume=resumable,
            overwrite=not resumable,
        )
        folder.mkdir(parents=True, exist_ok=True)
        diverged, start = "", time.monotonic()
        try:
            seconds = fit(options).seconds
        except NonFiniteError as error:
            diverged, seconds = str(error), time.monotonic() - start
            report_progress(f"diverged: {error}")
        metrics = {} if diverged else json.loads((folder / "evaluation.json").read_text())
        early = [row["loss"] for row in read_metrics(folder / "metrics.csv") if row.get("loss") is not None]
        steps = [row["step"] for row in read_metrics(folder / "metrics.csv") if row.get("loss") is not None]
        reached = [loss for step, loss in zip(steps, early, strict=True) if step is not None and step <= EARLY_STEP]
        result = {
            "seed": seed,
            "seconds": seconds,
            "metrics": metrics,
            "diverged": diverged,
            "early_loss": reached[-1] if reached else None,
        }
        write_output(done, json.dumps(result, indent=2).encode())
        (folder / "last.ckpt").unlink(missing_ok=True)
        if seed != config.random.seed and not config.keep_checkpoints:
            (folder / "best.ckpt").unlink(missing_ok=True)
        gc.collect()
    return Run(**json.loads(done.read_text()), folder=folder)


def _describe(data: DetectionData) -> str:
    return f"{len(data.records)} images with {data.num_objects} objects of {len(data.classes)} classes"
