"""Find out by a short probe which settings a dataset needs: measure, compare a few candidates with the default, decide.

The probe measures the data, derives candidates (`candidates`), plans training runs that fit into the time
(`probe_plan`), and trains. Every run is an ordinary training run of few steps; all runs have equally many. Where a
cause has several candidates, a first seed selects one of these. Only runs with later seeds are evidence (`decision`).
The same call continues an interrupted probe.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

from retinanet.config import (
    PrescribeConfig,
    TrainConfig,
    given_options,
    resolve,
    section_from_dict,
    to_dict,
    with_options,
)
from retinanet.data import DetectionData, Record, load_train_and_val
from retinanet.errors import ConfigError
from retinanet.progress import progress_log
from retinanet.study.candidates import DEFAULT, Candidate, candidates, combine
from retinanet.study.decision import Comparison, Screened, compare, decide, screened, select
from retinanet.study.generalization import generalization, sample
from retinanet.study.measurements import LEARNT, measure, with_loss_of_run
from retinanet.study.outcomes import Run
from retinanet.study.parts import write_part
from retinanet.study.prescription import Prescription
from retinanet.study.probe_options import probe_options
from retinanet.study.probe_plan import MAX_SEEDS, MIN_SEEDS, Durations, Plan, plan_runs
from retinanet.study.runs import train_set_up
from retinanet.study.stored_options import store_options
from retinanet.train.metrics_table import read_metrics
from retinanet.train.output_files import report_progress, write_output
from retinanet.train.run_lock import locked_run_folder

TIMING_STEPS: Final = 12
"""Steps of the first run, which measures the duration of a step."""
RESERVED: Final = 0.05
"""Share of the time that is left for the measurements after the runs and for the report."""
SLOWER: Final = 1.25
"""A first run that takes this many times as long as planned leads to a new plan."""
FASTER: Final = 0.8
"""So does a first run that takes less than this multiple of the planned time."""


def prescribe(data: Path, config: PrescribeConfig | None = None, **options: Any) -> Prescription:
    """Measure `data`, compare candidates, and write config.yaml and prescribe.json into `config.folder.output`.

    Args:
        data: training data, see `data.read`.
        config: all options as an object; give either `config` or `options`.
        options: options by name, as the flags of `retinanet prescribe`.

    Raises:
        ConfigError: the output folder holds a probe with other options or is in use by another process, or the time
            does not suffice.
        DataError: the data has faults.
    """
    config = config or resolve(PrescribeConfig, options)
    with locked_run_folder(config.folder.output):
        return _Probe(with_options(config, train=data)).prescription()


class _Probe:
    """A probe in its locked output folder. plan.json stores durations, so that a second call plans the same runs."""

    def __init__(self, config: PrescribeConfig) -> None:
        self.config = config
        self.folder = config.folder.output
        store_options(config, what="probe", parts=("runs", "data", "plan.json"))
        self.file = self.folder / "plan.json"
        self.state: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {"seconds": {}}
        self.runs: dict[str, dict[int, Run]] = {}
        self.done = 0
        with self._timed("data"):
            train_data, val_data = load_train_and_val(section_from_dict(TrainConfig, to_dict(config)))
            val = self._write(val_data, val_data.records, "val")
            self.base = probe_options(config, self._write(train_data, train_data.records, "train"), val)
            seen = sample(train_data.records, len(val_data.records), seed=config.random.seed)
            self.sample = self._write(train_data, seen, "train-sample")
            with _quiet():
                self.measured = measure(train_data, val_data, self.base)
        for sentence in self.measured.sentences():
            report_progress(sentence)

    def prescription(self) -> Prescription:
        """Plan, train and decide. Write config.yaml and prescribe.json."""
        durations, self.plan = self._plan()
        screening, finalists = self._screening()
        first = self.config.random.seed + bool(screening)
        most = MAX_SEEDS if finalists else self.plan.seeds  # time that is left narrows the intervals
        seeds = self._rounds([DEFAULT, *finalists], first, most=most, reserve=len(finalists) > 1)
        default, rare = self._of(DEFAULT, seeds), self.measured.measurable_rare
        tested = [compare(c, self._of(c, seeds), default, rare=rare, tested=len(finalists)) for c in finalists]
        supported = [comparison for comparison in tested if comparison.is_supported]
        combination: list[Comparison] = []
        if len(supported) > 1:
            joint = combine([comparison.candidate for comparison in supported])
            both = self._of(joint, self._rounds([joint], first, most=len(seeds)))
            targets = dict.fromkeys(comparison.target for comparison in supported)
            reference = default[: len(both)]
            combination = [compare(joint, both, reference, rare=rare, target=target) for target in targets]
        seen = generalization(default)
        result = Prescription(
            config=self.config,
            measured=self.measured,
            durations=durations,
            plan=self.plan,
            screening=tuple(screening),
            comparisons=tuple(tested),
            combination=tuple(combination),
            seen=seen,
            runs={name: tuple(runs[seed] for seed in sorted(runs)) for name, runs in self.runs.items()},
            decision=decide(tested, combination, seen, screening=screening),
            seconds=self._spent(),
        )
        write_output(result.config_file, result.option_file())
        write_output(self.folder / "prescribe.json", json.dumps(result.to_json(), indent=2))
        return result

    def _screening(self) -> tuple[list[Screened], list[Candidate]]:
        """Train the candidates of causes that have several with the first seed. Return the gains, and one candidate of
        each cause.
        """
        planned = self.plan.candidates
        competing = [c for c in planned if sum(other.cause == c.cause for other in planned) > 1]
        screening = []
        for candidate in competing:
            runs = [self._train(c, self.config.random.seed) for c in (candidate, DEFAULT)]
            screening.append(screened(candidate, *runs, rare=self.measured.measurable_rare))
        return screening, [c for c in planned if c not in competing] + select(screening)

    def _plan(self) -> tuple[Durations, Plan]:
        """Return durations and plan: of the timing run, or of a first default run that shows something new."""
        found = candidates(self.measured, self.base, given=given_options(self.config))
        durations, plan = self._planned("first", found, self._time_a_run)
        self.plan = plan
        run = self._train(DEFAULT, self.config.random.seed)
        if run.ap >= LEARNT:
            self.measured = with_loss_of_run(self.measured, run.folder)
        more = candidates(self.measured, self.base, given=given_options(self.config))
        needed, planned = self.state["seconds"][self._name(DEFAULT, run.seed)], durations.run(plan.steps)
        is_off = not FASTER * planned <= needed <= SLOWER * planned
        if len(more) > len(found) or is_off or "second" in self.state:
            scale = needed / planned
            measured = Durations(step=durations.step * scale, fixed=durations.fixed * scale)
            with suppress(ConfigError):  # too little time is left for a new plan: the first plan takes longer
                durations, plan = self._planned("second", more, lambda: measured)
            self.runs.clear()
        names = ", ".join(candidate.label for candidate in plan.candidates) or "no change of the options"
        report_progress(f"candidates: {names}")
        for candidate in plan.candidates:
            report_progress(f"  {candidate.label}: {candidate.reason}")
        report_progress(f"plan: about {len(plan.runs())} training runs of {plan.steps:,} steps, {plan.seeds} seeds")
        return durations, plan

    def _planned(self, key: str, found: Sequence[Candidate], durations: Any) -> tuple[Durations, Plan]:
        """Return durations and plan that plan.json holds under a key, or make both."""
        if key not in self.state:
            measured = durations()
            left = self.config.minutes * 60 * (1 - RESERVED) - self._spent()
            self.state[key] = {**dataclasses.asdict(measured), "left": left}
            self._save()
        stored = self.state[key]
        known = Durations(step=stored["step"], fixed=stored["fixed"])
        return known, plan_runs(found, known, seconds=stored["left"])

    def _time_a_run(self) -> Durations:
        """Train a few steps of the default and return the durations of a step and of everything else."""
        folder = self.folder / "runs" / "timing"
        options = {"max_steps": TIMING_STEPS, "log_every": 1}
        timing = dataclasses.replace(DEFAULT, name="timing", options=options)
        with self._timed("timing"), _quiet():
            train_set_up(
                self.base,
                timing.variant,
                seed=self.config.random.seed,
                folder=folder,
                keep_best=False,
                train_sample=self.sample,
            )
        rows = [row for row in read_metrics(folder / "metrics.csv") if row.get("loss") is not None]
        elapsed = {int(row["step"] or 0): float(row["seconds"] or 0) for row in rows}
        early, late = min(2, len(elapsed)), max(elapsed)
        step = max(1e-4, (elapsed[late] - elapsed[early]) / max(1, late - early))
        fixed = max(0.0, self.state["seconds"]["timing"] - step * late)
        report_progress(f"a training step takes {step:.2f} s, a run without its steps {fixed:.1f} s")
        return Durations(step=step, fixed=fixed)

    def _rounds(self, set_ups: Sequence[Candidate], first: int, *, most: int, reserve: bool = False) -> list[int]:
        """Train set-ups with one seed after the other, as far as time allows, and return the seeds.

        The number of seeds never depends on the results, which would bias the intervals.

        Args:
            set_ups: set-ups to train with each seed.
            first: first seed.
            most: greatest number of seeds.
            reserve: leave time for the combination of set-ups with each seed.
        """
        seeds: list[int] = []
        for seed in range(first, first + most):
            if len(seeds) >= MIN_SEEDS and not self._finished(set_ups, seed):
                longest = max(self.state["seconds"][self._name(c, seeds[-1])] for c in set_ups)
                needed = longest * (len(set_ups) + (len(seeds) + 1 if reserve else 0))
                if self._spent() + needed > self.config.minutes * 60:
                    break
            for candidate in set_ups:
                self._train(candidate, seed)
            seeds.append(seed)
        return seeds

    def _finished(self, set_ups: Sequence[Candidate], seed: int) -> bool:
        return all(self._name(candidate, seed) in self.state["seconds"] for candidate in set_ups)

    def _train(self, candidate: Candidate, seed: int) -> Run:
        """Train a set-up with one seed, or return its earlier result."""
        runs = self.runs.setdefault(candidate.name, {})
        if seed not in runs:
            variant, name = candidate.variant, self._name(candidate, seed)
            options = {**variant.options, "max_steps": self.plan.steps}
            if candidate is DEFAULT and seed == self.config.random.seed:
                options["measure_imbalance"] = 1
            variant = dataclasses.replace(variant, options=options)
            earlier = name in self.state["seconds"]
            with self._timed(name), _quiet():
                runs[seed] = train_set_up(
                    self.base,
                    variant,
                    seed=seed,
                    folder=self.folder / "runs" / name,
                    keep_best=False,
                    train_sample=self.sample if candidate is DEFAULT else None,
                )
            self.done += 1
            note = " (finished earlier)" if earlier else ""
            left = max(0.0, self.config.minutes - self._spent() / 60)
            report_progress(
                f"[run {self.done}] {candidate.label}, seed {seed}: AP {runs[seed].ap:.3f}{note}; "
                f"{left:.1f} minutes left"
            )
        return runs[seed]

    def _name(self, candidate: Candidate, seed: int) -> str:
        return f"{candidate.name}-{self.plan.steps}-steps-seed{seed}"

    def _of(self, candidate: Candidate, seeds: Sequence[int]) -> list[Run]:
        return [self.runs[candidate.name][seed] for seed in seeds]

    def _write(self, data: DetectionData, records: Sequence[Record], name: str) -> Path:
        """Write some images of a dataset as COCO, and return the path."""
        path = self.folder / "data" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_part(data, records, path)
        return path

    def _spent(self) -> float:
        """Return the time that the probe took so far over all calls, seconds."""
        return float(sum(self.state["seconds"].values()))

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Store the duration of a part of the probe. A part that a former call finished keeps its duration."""
        start = monotonic()
        yield
        if name not in self.state["seconds"]:
            self.state["seconds"][name] = monotonic() - start
            self._save()

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_output(self.file, json.dumps(self.state, indent=2))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the progress lines of single training runs. Warnings stay."""
    level = progress_log.level
    progress_log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        progress_log.setLevel(level)
