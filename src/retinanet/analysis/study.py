"""Each loss trained on the user's own data, with equal budgets and several seeds, and what the numbers support.

Every run is an ordinary training by `train.fit`; the study only chooses the options, reads the files that the runs
wrote, and compares. A study that was stopped goes on where it was: finished runs are read, a begun one is resumed.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from retinanet.config import ConfigError, StudyConfig, TrainConfig, resolve, section_from_dict, to_dict
from retinanet.data import DetectionData, load_both, load_train
from retinanet.report.summary import read_metrics
from retinanet.train import NonFiniteError, fit
from retinanet.train.callbacks import write_atomically

T_QUANTILES: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
"""Student's t, 97.5 %, for 1, 2, ... degrees of freedom; 1.96 beyond."""
EARLY_STEP: Final = 100
"""The loss after so many steps tells whether the start was stable."""
VAL_SHARE: Final = 0.2

PAPER: Final = (
    ("cross-entropy, prior 0.01", "ResNet-50, 600 px", 30.2),
    ("cross-entropy, no prior", "ResNet-50, 600 px", None),
    ("alpha-balanced cross-entropy, alpha 0.75", "ResNet-50, 600 px", 31.1),
    ("focal, gamma 0.5, alpha 0.5", "ResNet-50, 600 px", 32.9),
    ("focal, gamma 1, alpha 0.25", "ResNet-50, 600 px", 33.7),
    ("focal, gamma 2, alpha 0.25", "ResNet-50, 600 px", 34.0),
    ("focal, gamma 5, alpha 0.25", "ResNet-50, 600 px", 32.2),
    ("OHEM, best setting", "ResNet-101, 600 px", 32.8),
    ("focal, gamma 2, alpha 0.25", "ResNet-101, 600 px", 36.0),
)
"""COCO AP in percent from arXiv 1708.02002, tables 1a, 1b and 1d, section 4.1; None: the training diverged."""

LABELS: Final = {
    "focal": "focal",
    "ce": "cross-entropy",
    "balanced_ce": "alpha-balanced cross-entropy",
    "weighted": "weighted cross-entropy",
    "hard_negative_mining": "hard negative mining",
    "ohem": "OHEM",
    "quality_focal": "quality focal",
    "varifocal": "varifocal",
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One set-up of a study: `options` are what it changes of the common ones. `name` is its folder's."""

    name: str
    label: str
    options: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training of a study.

    Args:
        seed: of the run.
        seconds: it took.
        metrics: `Metrics.to_json()` after the last step; empty where it diverged.
        diverged: what was said when the loss became NaN or infinite; empty where it did not.
        early_loss: training loss after `EARLY_STEP` steps (or after the last, of fewer), None where it never got there.
        folder: of the run.
    """

    seed: int
    seconds: float
    metrics: dict[str, Any] = field(repr=False)
    diverged: str
    early_loss: float | None
    folder: Path

    @property
    def ap(self) -> float:
        """AP; 0 for a run that diverged, since it gave no detector."""
        return float(self.metrics.get("AP", 0.0))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All runs of a set-up."""

    variant: Variant
    runs: tuple[Run, ...]

    def mean(self, name: str = "AP") -> float:
        """Return the mean of a COCO number over the seeds."""
        return float(np.mean([run.metrics.get(name, 0.0) for run in self.runs]))

    def interval(self, name: str = "AP") -> tuple[float, float]:
        """Return the 95 % confidence interval of the mean (Student's t); (-inf, inf) from a single run."""
        values = [float(run.metrics.get(name, 0.0)) for run in self.runs]
        return confidence_interval(values)

    @property
    def diverged(self) -> int:
        """Runs that ended in NaN or infinity."""
        return sum(bool(run.diverged) for run in self.runs)

    @property
    def early_loss(self) -> float | None:
        """Mean training loss after `EARLY_STEP` steps."""
        values = [run.early_loss for run in self.runs if run.early_loss is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study found. The first outcome is the one that the others are compared with."""

    config: StudyConfig
    outcomes: tuple[Outcome, ...]
    train: str
    val: str

    def sentences(self) -> list[str]:
        """Return what the numbers support, and what they do not, in words."""
        reference = self.outcomes[0]
        ranked = sorted(self.outcomes, key=lambda outcome: -outcome.mean())
        best = ranked[0]
        said = [
            f"Highest AP: {best.variant.label}, {best.mean():.3f} (95 % interval {_interval(best.interval())}, "
            f"{_seeds(best)}); {reference.variant.label}: {reference.mean():.3f} ({_interval(reference.interval())})."
        ]
        if len(reference.runs) < 2:
            said.append("With a single seed there are no intervals: no difference below is more than an observation.")
        others = self.outcomes[1:]
        said += [difference(outcome, reference) for outcome in others if differs(outcome, reference)]
        if alike := [f"{o.variant.label} ({o.mean():.3f})" for o in others if not differs(o, reference)]:
            said.append(
                f"No measurable difference, as the intervals overlap, between {reference.variant.label} "
                f"({reference.mean():.3f}) and: {'; '.join(alike)}."
            )
        for outcome in self.outcomes:
            if outcome.diverged:
                count = f"{outcome.diverged} of {len(outcome.runs)} runs"
                said.append(f"{outcome.variant.label}: {count} diverged (counted as AP 0).")
            elif max(run.ap for run in outcome.runs) < 0.01:
                said.append(f"{outcome.variant.label} learnt nothing in this time: AP below 0.01 with every seed.")
        said += self._not_learnt()
        said.append(self.suggestion())
        return said

    def class_aps(self) -> dict[str, list[list[float]]]:
        """Return AP of each class: for every set-up, in their order, a value for each of its runs that was measured."""
        found: dict[str, list[list[float]]] = {}
        for place, outcome in enumerate(self.outcomes):
            for run in outcome.runs:
                path = run.folder / "evaluation.json"
                if run.diverged or not path.exists():
                    continue
                for name, numbers in json.loads(path.read_text())["per_class"].items():
                    if numbers["AP"] >= 0:  # -1: a class without objects here
                        found.setdefault(name, [[] for _ in self.outcomes])[place].append(numbers["AP"])
        return found

    def _not_learnt(self) -> Iterator[str]:
        """Yield which classes some set-ups did not learn at all and others did: there imbalance hurts most."""
        for name, aps in self.class_aps().items():
            missed = [
                f"{outcome.variant.label} ({sum(ap < NOT_LEARNT for ap in values)} of {len(values)} runs)"
                for outcome, values in zip(self.outcomes, aps, strict=True)
                if any(ap < NOT_LEARNT for ap in values)
            ]
            best = max((float(np.mean(values)), place) for place, values in enumerate(aps) if values)
            if missed and best[0] >= 10 * NOT_LEARNT:
                said = f"{name} was not learnt (AP below {NOT_LEARNT:g}) with {'; '.join(missed)}"
                yield f"{said}: with {self.outcomes[best[1]].variant.label} its AP is {best[0]:.3f}."

    def suggestion(self) -> str:
        """Return which alpha and gamma to use, as far as the data says."""
        focal = [outcome for outcome in self.outcomes if outcome.variant.options.get("loss") == "focal"]
        focal = [outcome for outcome in focal if "prior" not in outcome.variant.options]
        if len(focal) < 2:
            return "Alpha and gamma were not varied: `--alphas 0.25 0.5 0.75 --gammas 0.5 1 2 5` compares them."
        best, reference = max(focal, key=lambda outcome: outcome.mean()), focal[0]
        options = best.variant.options
        flags = f"--alpha {options['alpha']:g} --gamma {options['gamma']:g}"
        if best is reference:
            return f"Of the focal settings tried, the one that you have is the best here: {flags}."
        if differs(best, reference):
            return f"Use {flags}: measurably better than {reference.variant.label} on this data."
        return (
            f"{flags} has the highest mean of the focal settings, but not measurably: "
            f"{reference.variant.label} is as well supported."
        )

    def table(self) -> Table:
        """Return the comparison for a terminal."""
        table = Table(title="Loss study (all columns: study.md)", title_justify="left")
        shown = [place for place, name in enumerate(HEAD) if name in ON_TERMINAL]
        for place in shown:
            table.add_column(HEAD[place], justify="left" if place == 0 else "right", min_width=len(HEAD[place]))
        for row in self.rows():
            table.add_row(*(row[place] for place in shown))
        return table

    def rows(self) -> list[list[str]]:
        """Return the comparison as text, a row for each set-up, columns as `HEAD`."""
        reference = self.outcomes[0]
        return [
            [
                outcome.variant.label,
                f"{outcome.mean():.3f}",
                _interval(outcome.interval()),
                f"{outcome.mean('AP50'):.3f}",
                f"{outcome.mean('AP75'):.3f}",
                "–" if outcome is reference else f"{outcome.mean() - reference.mean():+.3f}",
                "–" if outcome is reference else _verdict(outcome, reference),
                f"{outcome.diverged} of {len(outcome.runs)}",
                "–" if outcome.early_loss is None else f"{outcome.early_loss:.3g}",
                f"{np.mean([run.seconds for run in outcome.runs]) / 60:.1f}",
            ]
            for outcome in self.outcomes
        ]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "train": self.train,
            "val": self.val,
            "options": to_dict(self.config),
            "set_ups": [
                {
                    "name": outcome.variant.name,
                    "label": outcome.variant.label,
                    "options": outcome.variant.options,
                    "AP": outcome.mean(),
                    "interval": [v if math.isfinite(v) else None for v in outcome.interval()],
                    "runs": [
                        {
                            "seed": run.seed,
                            "seconds": run.seconds,
                            "early_loss": run.early_loss,
                            "diverged": run.diverged,
                            "metrics": run.metrics,
                        }
                        for run in outcome.runs
                    ],
                }
                for outcome in self.outcomes
            ],
            "sentences": self.sentences(),
        }

    def markdown(self) -> str:
        """Return the table for a README."""
        lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows())]) + "\n"


HEAD: Final = (
    *("Loss", "AP", "95 % interval", "AP50", "AP75", "To the first", "Supported", "Diverged"),
    *(f"Loss at step {EARLY_STEP}", "Minutes a run"),
)
NOT_LEARNT: Final = 0.01
ON_TERMINAL: Final = ("Loss", "AP", "95 % interval", "AP50", "Supported")
"""What of it fits 80 columns."""


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t; without bounds from fewer than two values."""
    if len(values) < 2:
        return -math.inf, math.inf
    freedom = len(values) - 1
    t = T_QUANTILES[freedom - 1] if freedom <= len(T_QUANTILES) else 1.96
    mean, half = float(np.mean(values)), t * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def differs(first: Outcome, second: Outcome) -> bool:
    """Return whether the two intervals of AP keep apart: the plain, careful reading of a difference."""
    (low, high), (other_low, other_high) = first.interval(), second.interval()
    return low > other_high or high < other_low


def difference(outcome: Outcome, reference: Outcome) -> str:
    """Return in words how a set-up that differs measurably stands to another."""
    by = outcome.mean() - reference.mean()
    word = "better" if by > 0 else "worse"
    return f"{outcome.variant.label} is {word} than {reference.variant.label} by {abs(by):.3f} AP."


def variants(config: StudyConfig) -> list[Variant]:
    """Return the set-ups to train; focal loss as configured comes first, if it is among them."""
    found = [_variant(config, loss) for loss in sorted(config.losses, key=lambda loss: loss != "focal")]
    if config.alphas or config.gammas:
        for gamma in config.gammas or (config.gamma,):
            for alpha in config.alphas or (config.alpha,):
                found.append(_variant(config, "focal", alpha=alpha, gamma=gamma))
    found += [_variant(config, loss, prior=0.5) for loss in config.without_prior]
    by_name = {variant.name: variant for variant in found}
    return list(by_name.values())


def _variant(config: StudyConfig, loss: str, **changed: Any) -> Variant:
    values = {"alpha": config.alpha, "gamma": config.gamma} | changed
    options: dict[str, Any] = {"loss": loss}
    label, name = LABELS[loss], loss
    if loss in {"focal", "balanced_ce", "varifocal"}:
        options["alpha"] = values["alpha"]
    if loss in {"focal", "quality_focal", "varifocal"}:
        options["gamma"] = values["gamma"]
    shown = [f"{key} {options[key]:g}" for key in ("gamma", "alpha") if key in options]
    if loss == "weighted":
        shown = [f"negatives × {config.negative_weight:g}"]
    if loss == "ohem":
        shown = [f"{config.ohem_examples} anchors" + (", 1:3" if config.ohem_balanced else "")]
    if "prior" in changed:
        options["prior"] = changed["prior"]
        shown.append("no prior")
    name = "-".join([loss, *(f"{key}{options[key]:g}" for key in ("gamma", "alpha", "prior") if key in options)])
    return Variant(name=name, label=", ".join([label, *shown]), options=options)


def study(data: Path, config: StudyConfig | None = None, **options: Any) -> Study:
    """Train all set-ups on `data`, and write table, report and figures into `config.output`.

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
    plan = [(variant, seed) for seed in range(config.seed, config.seed + config.seeds) for variant in variants(config)]
    start, done, runs = time.monotonic(), 0, dict[str, list[Run]]()
    for number, (variant, seed) in enumerate(plan, start=1):
        folder = config.output / "runs" / f"{variant.name}-seed{seed}"
        fresh = not (folder / "run.json").exists()
        print(f"\n[{number}/{len(plan)}] {variant.label}, seed {seed}" + ("" if fresh else ": done before"), flush=True)
        runs.setdefault(variant.name, []).append(_run(config, variant, seed, folder, train, val))
        done += fresh
        if fresh and number < len(plan):
            left = (time.monotonic() - start) / done * (len(plan) - number)
            print(f"about {left / 60:.0f} minutes left for the study", flush=True)
    outcomes = [Outcome(variant=variant, runs=tuple(runs[variant.name])) for variant in variants(config)]
    found = Study(config=config, outcomes=tuple(outcomes), train=_describe(train_data), val=_describe(val_data))
    write_atomically(config.output / "study.json", json.dumps(found.to_json(), indent=2).encode())
    write_atomically(config.output / "study.md", found.markdown().encode())
    from retinanet.report.study import study_report

    study_report(found, val_data, config.output / "report.html")
    return found


def run(data: Path, config: StudyConfig) -> None:
    """Do what `retinanet study` does, and print the comparison."""
    found = study(data, config)
    console = Console()
    console.print(found.table())
    for sentence in found.sentences():
        console.print(sentence, markup=False, highlight=False)
    console.print(f"report: {config.output / 'report.html'}", markup=False, highlight=False)


def _claim(config: StudyConfig) -> None:
    """Write the options down, or refuse a folder whose study had others: its runs would not be comparable."""
    path = config.output / "options.json"
    free = {"output", "losses", "without_prior", "alphas", "gammas", "seeds", "keep_checkpoints", "workers"}
    free |= {"overwrite", "resume", "device", "devices"}
    mine = {name: value for name, value in to_dict(config).items() if name not in free}
    if config.overwrite and (config.output / "runs").exists():
        shutil.rmtree(config.output / "runs")
    elif path.exists():
        before = json.loads(path.read_text())
        changed = [name for name in mine if mine[name] != before.get(name)]
        if changed:
            said = ", ".join(f"{name} was {before.get(name)}, is {mine[name]}" for name in changed)
            raise ConfigError(
                f"{config.output} holds a study with other options ({said}): another folder, or --overwrite"
            )
    config.output.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(mine, indent=2).encode())


def _split(config: StudyConfig) -> tuple[Path, Path, DetectionData, DetectionData]:
    """Return both data sets; without `val`, a fifth of the pictures, chosen by the seed, is kept for it."""
    if config.val is not None:
        train, val = load_both(config)
        return config.train, config.val, train, val
    data = load_train(config)
    order = np.random.default_rng(config.seed).permutation(len(data.records))
    count = max(1, round(VAL_SHARE * len(order)))
    if count >= len(order):
        raise ConfigError(f"{config.train} has {len(order)} pictures: too few to keep some for validation; give --val")
    parts = {"val": sorted(order[:count].tolist()), "train": sorted(order[count:].tolist())}
    paths, sets = {}, {}
    for name, chosen in parts.items():
        sets[name] = dataclasses.replace(data, records=tuple(data.records[i] for i in chosen), faults=())
        content = sets[name].to_coco()
        for image, i in zip(content["images"], chosen, strict=True):
            image["file_name"] = str(data.records[i].path.absolute())
        paths[name] = config.output / f"{name}.json"
        write_atomically(paths[name], json.dumps(content).encode())
    return paths["train"], paths["val"], sets["train"], sets["val"]


def _run(config: StudyConfig, variant: Variant, seed: int, folder: Path, train: Path, val: Path) -> Run:
    """Train one set-up with one seed, or read what became of it before."""
    done = folder / "run.json"
    if not done.exists():
        options = section_from_dict(TrainConfig, {**to_dict(config), "train": train, "val": val, "output": folder})
        resumable = (folder / "last.ckpt").exists()
        options = dataclasses.replace(
            options,
            **variant.options,
            seed=seed,
            evaluate_every=config.epochs,
            resume=resumable,
            overwrite=not resumable,
        )
        folder.mkdir(parents=True, exist_ok=True)
        diverged, start = "", time.monotonic()
        try:
            seconds = fit(options).seconds
        except NonFiniteError as error:
            diverged, seconds = str(error), time.monotonic() - start
            print(f"diverged: {error}", flush=True)
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
        write_atomically(done, json.dumps(result, indent=2).encode())
        (folder / "last.ckpt").unlink(missing_ok=True)
        if seed != config.seed and not config.keep_checkpoints:
            (folder / "best.ckpt").unlink(missing_ok=True)
        gc.collect()
    return Run(**json.loads(done.read_text()), folder=folder)


def _describe(data: DetectionData) -> str:
    return f"{len(data.records)} pictures with {data.num_objects} objects of {len(data.classes)} classes"


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if math.isfinite(bounds[0]) else "–"


def _seeds(outcome: Outcome) -> str:
    return f"{len(outcome.runs)} seed" + ("s" if len(outcome.runs) > 1 else "")


def _verdict(outcome: Outcome, reference: Outcome) -> str:
    if not differs(outcome, reference):
        return "no difference"
    return "better" if outcome.mean() > reference.mean() else "worse"
