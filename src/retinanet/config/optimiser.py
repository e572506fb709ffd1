"""The optimiser and the length and schedule of a training run."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """The optimiser and the step it makes."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW."""
    lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate for `lr_batch_size` images a step; scaled in proportion to those there are."""
    lr_batch_size: Annotated[int, Gt(0)] = 16
    """The images a step, over all devices and accumulated batches, that `lr` is meant for."""
    backbone_lr_factor: Annotated[float, Ge(0)] = 1.0
    """Factor on the learning rate of the backbone."""
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    """Weight decay; biases and norm layers have none."""
    accumulate: Annotated[int, Gt(0)] = 1
    """Batches whose gradients are added up before the optimiser steps."""
    clip_gradients: Annotated[float, Ge(0)] = 10.0
    """Largest norm of the gradient; 0: no clipping."""
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Decay of the running average of the weights that is evaluated and saved; 0: none."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The length of a run and the course of its learning rate."""

    epochs: Annotated[int, Gt(0)] = 12
    """Passes over the training data."""
    max_steps: int = -1
    """Stop after so many optimiser steps; -1: no such limit."""
    schedule: Literal["step", "cosine"] = "step"
    """After the warm-up: a tenth at 2/3 and a hundredth at 8/9 of the steps, or half a cosine down to 0."""
    warmup_steps: Annotated[int, Ge(0)] = 500
    """Steps of linear warm-up; at most a tenth of all steps."""
    patience: Annotated[int, Ge(0)] = 0
    """Stop after so many evaluations without a better AP; 0: never."""

    def __post_init__(self) -> None:
        check_options(self)
        if self.max_steps == 0 or self.max_steps < -1:
            raise ConfigError(f"max_steps must be above 0, or -1 for no limit, found {self.max_steps}")
