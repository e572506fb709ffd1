"""The result of `retinanet prescribe`: measurements, comparisons and the decision, in words, as JSON and as options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from retinanet.config import PrescribeConfig, TrainConfig, given_options, options_of, to_dict
from retinanet.study.candidates import AP, DEFAULT
from retinanet.study.decision import NOTHING, Comparison, Decision, Screened, needs_images
from retinanet.study.generalization import Generalization
from retinanet.study.measurements import LEARNT, Measurements
from retinanet.study.outcomes import Run
from retinanet.study.probe_plan import Durations, Plan
from retinanet.study.statistics import PairedDifference
from retinanet.version import __version__

COLUMN_TITLES: Final = ("Change", "Metric", "Default", "With the change", "Difference", "Interval", "Decision")
"""Column titles of the table of comparisons."""
_PATHS: Final = ("train", "val", "images", "val_images", "backbone_weights", "start_from")
_LEFT_OUT: Final = ("output", "overwrite", "resume")


@dataclass(frozen=True, kw_only=True)
class Prescription:
    """Result of a probe.

    Args:
        config: options of the probe.
        measured: measurements of the data.
        durations: measured durations of the default.
        plan: steps, seeds and candidates of the training runs.
        screening: competing candidates, trained with the first seed; empty if each cause has one candidate.
        comparisons: tested changes and the default.
        combination: all supported changes together and the default, one comparison for each target metric.
        seen: AP of the default on training and on validation images.
        runs: finished training runs by name of the set-up.
        decision: the answer.
        seconds: duration of the probe.
        train, val: paths of the datasets.
    """

    config: PrescribeConfig
    measured: Measurements
    durations: Durations
    plan: Plan
    screening: tuple[Screened, ...]
    comparisons: tuple[Comparison, ...]
    combination: tuple[Comparison, ...]
    seen: Generalization
    runs: Mapping[str, tuple[Run, ...]]
    decision: Decision
    seconds: float

    @property
    def changes(self) -> dict[str, Any]:
        """Options of `retinanet train` that the prescription changes; empty if the default stays."""
        return dict(self.decision.chosen.options) if self.decision.chosen else {}

    @property
    def config_file(self) -> Path:
        """Path of the file with the prescribed options."""
        return self.config.folder.output / "config.yaml"

    def command(self) -> str:
        """Return the command that trains with the prescribed options."""
        return f"retinanet train --config {self.config_file} -o NEW_FOLDER"

    def candidate_sentences(self) -> list[str]:
        """Return a sentence for each candidate with the measurement that suggests it."""
        sentences = [
            f"{candidate.label}: {candidate.reason}. Must raise {candidate.target} without lowering "
            f"{' or '.join(candidate.guards)}."
            for candidate in self.plan.candidates
        ]
        return sentences or [NOTHING]

    def sentences(self) -> list[str]:
        """Return the answer and how it was found."""
        steps, seeds = self.plan.steps, len(self.runs.get(DEFAULT.name, ()))
        sentences = [
            self.decision.sentence,
            f"Every training run had {steps:,} steps. The probe took {self.seconds / 60:.1f} minutes.",
        ]
        if self.comparisons:
            confidence = self.comparisons[0].confidence
            sentences.append(
                f"Each difference is paired over {len(self.comparisons[0].values)} seeds, with its {confidence:.1%} "
                "interval (Student's t)."
            )
        if self.decision.answer != "collect images":
            sentences.append(self.seen.sentence())
        if any(run.diverged for runs in self.runs.values() for run in runs):
            names = ", ".join(name for name, runs in self.runs.items() if any(run.diverged for run in runs))
            sentences.append(f"Training diverged in runs of: {names}. A diverged run counts as AP 0.")
        if seeds and max(run.ap for run in self.runs[DEFAULT.name]) < LEARNT:
            sentences.append(
                f"The default reached an AP below {LEARNT:g} in {steps:,} steps, so differences are hard to see. Give "
                "more --minutes."
            )
        return sentences

    def rows(self, *, guards: bool = False) -> list[list[str]]:
        """Return the table as text; `COLUMN_TITLES` has the column titles.

        Args:
            guards: add a row for each metric that must not fall.
        """
        rows = []
        for comparison in (*self.comparisons, *self.combination):
            label = "all changes together" if comparison in self.combination else comparison.candidate.label
            metrics = {comparison.target: comparison.difference, **(comparison.guards if guards else {})}
            for metric, difference in metrics.items():
                is_target = metric == comparison.target
                fell = "fell" if metric in comparison.hurt else "did not fall"
                rows.append(
                    [
                        label if is_target else "",
                        metric,
                        *(f"{mean:.3f}" for mean in comparison.means[metric]),
                        *_columns(difference),
                        comparison.verdict if is_target else fell,
                    ]
                )
        verdict = "more images help" if needs_images(self.seen) else "enough images for this probe"
        train, val = (f"{np.mean(aps):.3f}" for aps in (self.seen.train, self.seen.val))
        change = self.seen.change
        interval = f"{change.low:+.0%} to {change.high:+.0%}"
        label = "validation images, against trained ones"
        rows.append([label, AP, train, val, f"{change.mean:+.0%}", interval, verdict])
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return all measurements, runs and decisions as plain values for JSON."""
        return {
            "answer": self.decision.answer,
            "changes": self.changes,
            "sentences": self.sentences(),
            "options": to_dict(self.config),
            "measurements": self.measured.to_json(),
            "candidates": [dataclasses.asdict(candidate) for candidate in self.plan.candidates],
            "plan": {
                "steps": self.plan.steps,
                "seeds": self.plan.seeds,
                "seconds_per_step": self.durations.step,
                "seconds_per_run_without_steps": self.durations.fixed,
            },
            "screening": [
                {"candidate": one.candidate.name, "gain": one.gain, "guard": one.guard} for one in self.screening
            ],
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
            "combination": [comparison.to_json() for comparison in self.combination],
            "seen": self.seen.to_json(),
            "runs": {
                name: [
                    {"seed": run.seed, "seconds": run.seconds, "diverged": run.diverged, "metrics": run.metrics}
                    for run in runs
                ]
                for name, runs in self.runs.items()
            },
            "seconds": self.seconds,
        }

    def option_file(self) -> str:
        """Return the prescribed options as YAML: those that the user gave, then the changes with their evidence."""
        values, known = to_dict(self.config), options_of(TrainConfig)
        names = {"preset", *_PATHS, *given_options(self.config)} & set(known) - set(_LEFT_OUT) - set(self.changes)
        given = {name: values[name] for name in known if name in names and values[name] is not None}
        candidates = [*(s.candidate for s in self.screening), *(c.candidate for c in self.comparisons)]
        if "anchors" not in self.changes and any("anchors" in candidate.options for candidate in candidates):
            given["anchors"] = "given"  # `as_needed` would fit anchors, which the runs did not support
        for name in _PATHS:
            if name in given:
                given[name] = str(Path(given[name]).absolute())
        lines = [f"# retinanet {__version__} prescribe: {self.decision.answer}. Evidence: report.html"]
        lines.append("# retinanet train --config THIS_FILE -o NEW_FOLDER")
        text = "\n".join(lines) + "\n" + yaml.safe_dump(given, sort_keys=False)
        if self.changes:
            text += f"\n# {self.decision.sentence}\n" + yaml.safe_dump(self.changes, sort_keys=False)
        return text


def _columns(difference: PairedDifference) -> tuple[str, str]:
    """Return the mean and the interval of a difference as text."""
    return f"{difference.mean:+.3f}", f"{difference.low:+.3f} to {difference.high:+.3f}"
