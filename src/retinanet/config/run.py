"""A training run as a whole: its random numbers, its measurements, and when it stops or continues."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from retinanet.config.annotations import MostUsed
from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Random numbers."""

    PANEL: ClassVar = "Run"

    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)] = 0
    """Seed of the random numbers. Equal seeds and options give equal results."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class ImbalanceConfig:
    """How the imbalance report counts examples."""

    PANEL: ClassVar = "Run"

    easy_from: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """In the imbalance report, an example is easy if the predicted probability of its true class is at least this
    value."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Measurements during a run, and whether it continues an earlier run."""

    PANEL: ClassVar = "Run"

    measure_imbalance: Annotated[int, Ge(0)] = 4
    """Number of measurements of the class imbalance per epoch, for the report; 0: no measurement."""
    evaluate_every: Annotated[int, Gt(0)] = 1
    """Number of epochs between two evaluations on the validation data."""
    log_every: Annotated[int, Gt(0)] = 10
    """Number of optimiser steps between two log entries of the losses."""
    resume: Annotated[bool, MostUsed()] = False
    """Continue the run in `output` from its last.ckpt. Options that are not given are taken from its config.yaml."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class NonfiniteConfig:
    """What happens when a loss, gradient or output is NaN or infinite."""

    PANEL: ClassVar = "Run"

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a loss, gradient or output is NaN or infinite: stop, or skip the step. Both write a record that `retinanet
    replay` runs again."""
    max_skipped_steps: Annotated[int, Ge(0)] = 3
    """With `--on-nonfinite skip`: largest number of consecutive skipped steps. Training stops after one more."""

    def __post_init__(self) -> None:
        check_options(self)
