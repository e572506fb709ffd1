"""Derive the few settings that measurements suggest. Each candidate states its measurement, its target and its guards.

The functions train nothing. `CAUSES` has one function for each cause; the order of its candidates is the order in which
they are kept if the time does not suffice for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from retinanet.config import TrainConfig
from retinanet.study.measurements import Measurements
from retinanet.study.outcomes import Run, Variant

WORTH_A_PROBE: Final = 0.03
"""Share of the objects from which a cause is tried. A few short runs cannot show the gain of fewer objects."""
REDUCED: Final = 1.5
"""Reduction of the images from which tiles are tried."""
MOSTLY_EASY: Final = 0.6
"""Share of easy background in the classification loss from which a larger gamma is tried."""
FEW_NEGATIVES: Final = 5.0
"""Effective number of negatives per image below which a smaller gamma is tried."""
COST_OF_P2: Final = 2.5
"""Duration of a training step with level P2, relative to a step without: P2 has three times the anchors of P3 to P7."""

AP, AP50, RARE_AP, OTHER_AP = "AP", "AP50", "AP of rare classes", "AP of other classes"
"""Names of the metrics that decide."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A change of the default options that a measurement suggests.

    Args:
        name: name of the run folders and of the JSON entry.
        label: name in tables and sentences.
        options: options of `retinanet train` to change.
        cause: the problem that the measurement shows; candidates of one cause compete with each other.
        reason: the measurement, as a sentence.
        target: metric that must rise.
        guards: metrics that must not fall.
        cost: duration of a training step, relative to the default.
    """

    name: str
    label: str
    options: dict[str, Any]
    cause: str
    reason: str
    target: str
    guards: tuple[str, ...]
    cost: float = 1.0

    @property
    def variant(self) -> Variant:
        """The set-up that `train_set_up` trains."""
        return Variant(name=self.name, label=self.label, options=self.options)


DEFAULT: Final = Candidate(name="default", label="default", options={}, cause="", reason="", target=AP, guards=())
"""The options of the command line without a change."""


def candidates(measured: Measurements, config: TrainConfig, *, given: Collection[str] = ()) -> list[Candidate]:
    """Return the candidates that the measurements suggest; none for data without a visible problem.

    Args:
        measured: measurements of the data and, after a default run, of its loss.
        config: the default options.
        given: names of the options that the user gave; a candidate that changes one of these is left out.
    """
    found = [candidate for cause in CAUSES for candidate in cause(measured, config)]
    return [candidate for candidate in found if not candidate.options.keys() & set(given)]


def value_of(run: Run, metric: str, rare: tuple[str, ...]) -> float:
    """Return a metric of a run; 0 for a run that diverged.

    Args:
        run: a finished training run.
        metric: `AP`, `AP50`, `RARE_AP` (mean over the rare classes) or `OTHER_AP` (mean over all other classes).
        rare: names of the rare classes with validation objects.
    """
    if metric in {AP, AP50}:
        return float(run.metrics.get(metric, 0.0))
    names = [name for name in run.metrics.get("per_class", {}) if (name in rare) == (metric == RARE_AP)]
    chosen = [ap for ap in map(run.class_ap, names) if ap is not None]
    return float(np.mean(chosen)) if chosen else 0.0


def combine(chosen: list[Candidate]) -> Candidate:
    """Return the candidate that changes the options of several candidates; the first one wins a shared option."""
    options: dict[str, Any] = {}
    for candidate in reversed(chosen):
        options |= candidate.options
    return Candidate(
        name="combination",
        label=" + ".join(candidate.label for candidate in chosen),
        options=options,
        cause="several",
        reason="Each of these changes is supported on its own",
        target=AP,
        guards=tuple({guard: None for candidate in chosen for guard in candidate.guards}),
        cost=max(candidate.cost for candidate in chosen),
    )


def without(kept: list[Candidate]) -> list[Candidate]:
    """Return the candidates without the last candidate of the cause that has most of these."""
    by_cause = {candidate.cause: [c for c in kept if c.cause == candidate.cause] for candidate in kept}
    dropped = max(by_cause.values(), key=len)[-1]
    return [candidate for candidate in kept if candidate is not dropped]


def _unreachable(measured: Measurements, config: TrainConfig) -> list[Candidate]:
    if measured.unreached <= WORTH_A_PROBE:
        return []
    now = f"{measured.unreached:.1%} of the objects have no positive anchor"
    if measured.unreached_side:
        now += f" (median side {measured.unreached_side:.0f} pixels)"
    found, fixed = [], {"cause": "unreachable objects", "target": AP, "guards": (AP50,)}
    if measured.unreached_if_fitted is not None and measured.unreached_if_fitted < measured.unreached:
        found.append(
            Candidate(
                name="fitted-anchors",
                label="fitted anchors" + (" with P2" if measured.adds_p2 else ""),
                options={"anchors": "auto"},
                reason=f"{now}; with anchors fitted to the data {measured.unreached_if_fitted:.1%}",
                cost=COST_OF_P2 if measured.adds_p2 else 1.0,
                **fixed,  # type: ignore[arg-type]
            )
        )
    for name, unreached in measured.unreached_by.items():
        reason = f"{now}; with the assigner {name} {unreached:.1%}"
        found.append(Candidate(name=name, label=f"assigner {name}", options={"assigner": name}, reason=reason, **fixed))  # type: ignore[arg-type]
    if config.matching.assigner == "iou" and not config.matching.low_quality_matches:
        found.append(
            Candidate(
                name="low-quality-matches",
                label="low-quality matches",
                options={"low_quality_matches": True},
                reason=f"{now}; low-quality matches give each object at least one",
                **fixed,  # type: ignore[arg-type]
            )
        )
    return found


def _tiny(measured: Measurements, config: TrainConfig) -> list[Candidate]:
    gained = measured.tiny - measured.tiny_in_tiles
    if config.tiling.tile or measured.reduction < REDUCED or gained <= WORTH_A_PROBE:
        return []
    return [
        Candidate(
            name="tiles",
            label=f"tiles of {config.image.image_size} pixels",
            options={"tile": max(32, config.image.image_size)},
            cause="tiny objects in large images",
            reason=f"Images are reduced {measured.reduction:.1f} times: {measured.tiny:.1%} of the objects have a side "
            f"below 8 input pixels, {measured.tiny_in_tiles:.1%} in tiles",
            target=AP,
            guards=(AP50,),
        )
    ]


def _rare(measured: Measurements, config: TrainConfig) -> list[Candidate]:
    if not measured.measurable_rare:
        return []
    most = max(measured.classes, key=lambda count: count.objects)
    rare = ", ".join(f"{count.name} {count.objects}" for count in measured.rare)
    changes: list[tuple[str, str, dict[str, Any]]] = []
    natural = config.sampling.sampler == "natural"
    # Copy-paste alone first: if time allows a single candidate, the runs are shorter than an epoch. Then the
    # repeat-factor sampler costs the other classes more than it gains (docs/benchmarks/beds.md).
    if not config.augmentation.copy_paste:
        changes.append(("copy-paste", "copy-paste", {"copy_paste": 1.0}))
    if not config.augmentation.copy_paste and natural:
        joint = {"copy_paste": 1.0, "sampler": "repeat_factor"}
        changes.append(("copy-paste-repeat-factor", "copy-paste with the repeat-factor sampler", joint))
    if natural:
        changes.append(("balanced-sampler", "balanced sampler", {"sampler": "balanced"}))
    if config.loss.loss == "focal" and not config.loss.class_alpha and not config.fitted.balance_classes:
        changes.append(("class-alpha", "alpha per class", {"balance_classes": True}))
    if natural:
        changes.append(("repeat-factor-sampler", "repeat-factor sampler", {"sampler": "repeat_factor"}))
    if config.loss.loss == "focal":
        changes.append(("eql-v2", "equalization loss v2", {"loss": "eql_v2"}))
    return [
        Candidate(
            name=name,
            label=label,
            options=options,
            cause="rare classes",
            reason=f"Few objects: {rare}; {most.name} has {most.objects:,}",
            target=RARE_AP,
            guards=(AP, OTHER_AP),
        )
        for name, label, options in changes
    ]


def _background(measured: Measurements, config: TrainConfig) -> list[Candidate]:
    """Return the candidate that the loss of a default run suggests."""
    if config.loss.loss != "focal" or measured.easy_background is None or measured.effective_negatives is None:
        return []
    gamma, fixed = config.loss.gamma, {"cause": "background", "target": AP, "guards": (AP50,)}
    if measured.easy_background > MOSTLY_EASY:
        reason = f"Easy background has {measured.easy_background:.0%} of the classification loss"
        change, value = "larger-gamma", gamma + 1
    elif measured.effective_negatives < FEW_NEGATIVES:
        reason = f"The background's gradient comes from about {measured.effective_negatives:.1f} negatives per image"
        change, value = "smaller-gamma", gamma / 2
    else:
        return []
    label = f"gamma {value:g}"
    return [Candidate(name=change, label=label, options={"gamma": value}, reason=reason, **fixed)]  # type: ignore[arg-type]


Cause = Callable[[Measurements, TrainConfig], list[Candidate]]
CAUSES: Final[tuple[Cause, ...]] = (_unreachable, _tiny, _rare, _background)
"""One function for each cause. `_background` needs the measurements of a default run."""


def to_json(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as plain values for JSON."""
    return dataclasses.asdict(candidate)
