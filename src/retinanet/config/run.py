"""A training run as a whole: its random numbers, its measurements, and when it stops or continues."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Random numbers."""

    seed: Annotated[int, Ge(0)] = 0
    """Seed of the random numbers. Equal seeds and options give equal results."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class ImbalanceConfig:
    """How the imbalance report counts examples."""

    easy_from: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """In the imbalance report, an example is easy if the predicted probability of its true class is at least this
    value."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Measurements during a run, and whether it continues an earlier one."""

    measure_imbalance: Annotated[int, Ge(0)] = 4
    """How many times an epoch the shares of the loss are measured, for the report; 0: never."""
    evaluate_every: Annotated[int, Gt(0)] = 1
    """Evaluate after every so many epochs."""
    log_every: Annotated[int, Gt(0)] = 10
    """Write the losses down every so many steps."""
    resume: bool = False
    """Go on from last.ckpt in the run's folder."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class NonfiniteConfig:
    """What happens at a loss, gradient or output that is NaN or infinite."""

    on_nonfinite: Literal["stop", "skip"] = "stop"
    """At a loss, gradient or output that is NaN or infinite: stop, with a record of the step; or skip the step."""
    max_skipped_steps: Annotated[int, Ge(0)] = 3
    """With `--on-nonfinite skip`, stop after more than this many consecutive skipped steps."""

    def __post_init__(self) -> None:
        check_options(self)
