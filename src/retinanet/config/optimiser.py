"""The optimiser and the length and schedule of a training run."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from retinanet.config.annotations import MostUsed
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError
from retinanet.parse import parse_duration


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """The optimiser and its step."""

    PANEL: ClassVar = "Optimisation"

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser: sgd (with momentum 0.9) or adamw."""
    lr: Annotated[float, Gt(0), MostUsed()] = 0.01
    """Learning rate for steps of `lr_batch_size` images. It is scaled in proportion to the actual number of images per
    step."""
    lr_batch_size: Annotated[int, Gt(0)] = 16
    """Number of images per optimiser step that `lr` is given for, over all devices and accumulated batches."""
    backbone_lr_factor: Annotated[float, Ge(0)] = 1.0
    """Factor on the learning rate of the backbone. 0.1 is common when fine-tuning; 1 treats all parameters alike."""
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    """Weight decay of the optimiser. Biases and normalisation layers have no weight decay."""
    accumulate: Annotated[int, Gt(0)] = 1
    """Number of batches whose gradients are added before each optimiser step. The loss of each batch is divided by the
    positive anchors of that batch, so the sum is close to the gradient of one large batch, but not equal."""
    clip_gradients: Annotated[float, Ge(0)] = 10.0
    """Largest L2 norm of the gradient; larger gradients are scaled down. 0: no clipping."""
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay per step of the exponential moving average (EMA) of the weights, which is evaluated and saved. 0: no
    average."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The length of a training run and the schedule of its learning rate."""

    PANEL: ClassVar = "Optimisation"

    epochs: Annotated[int, Gt(0), MostUsed()] = 12
    """Number of passes over the training data."""
    time_budget: str | None = None
    """Train for this time instead of `epochs`: 90s, 30m, 2h or 1h30m. The time includes start and evaluations; the
    schedule is fitted to it after the first steps."""
    max_steps: int = -1
    """Stop after this many optimiser steps; -1: no limit besides `epochs`; otherwise above 0."""
    schedule: Literal["step", "cosine"] = "step"
    """Learning rate after the warm-up: step (divided by 10 after 2/3 and after 8/9 of all steps) or cosine (half a
    cosine down to 0)."""
    warmup_steps: Annotated[int, Ge(0)] = 500
    """Number of optimiser steps over which the learning rate rises linearly; at most a tenth of all steps."""
    patience: Annotated[int, Ge(0)] = 0
    """Stop after this many evaluations without a better AP; 0: never stop early."""

    def __post_init__(self) -> None:
        check_options(self)
        if self.time_budget is not None:
            try:
                parse_duration(self.time_budget)
            except ValueError as error:
                raise ConfigError(f"time_budget: {error}") from error
        if self.max_steps == 0 or self.max_steps < -1:
            raise ConfigError(f"max_steps must be above 0, or -1 for no limit, found {self.max_steps}")

    def started_epochs(self, steps_per_epoch: int) -> int:
        """Return the number of epochs that `epochs` and `max_steps` allow. `max_steps` may end within the last one."""
        return self.epochs if self.max_steps < 0 else min(self.epochs, -(-self.max_steps // steps_per_epoch))
