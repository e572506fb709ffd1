"""Checks that several config sections share."""

import dataclasses
import math
from typing import Any

from retinanet.errors import ConfigError, did_you_mean


def check_finite(config: Any) -> None:
    """Refuse NaN and infinity, which pass most comparisons, in every number of a config."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{field.name} must be finite, found {number}")


def check_positive(config: object, *names: str) -> None:
    """Raise `ConfigError` unless every named option is above 0."""
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ConfigError(f"{name} must be above 0, found {value}")


def check_between(config: object, low: float, high: float, *names: str) -> None:
    """Raise `ConfigError` unless every named option lies in [low, high]."""
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} must be between {low} and {high}, found {value}")


def check_choice(config: object, **choices: tuple[str, ...]) -> None:
    """Raise `ConfigError`, with the nearest choice, unless each option is one of its choices."""
    for name, allowed in choices.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ConfigError(
                f"{name} must be one of {', '.join(allowed)}, found {value!r}{did_you_mean(value, allowed)}"
            )
