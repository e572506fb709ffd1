"""Loggers and callbacks of a training run."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from retinanet.config.annotations import Flag
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError, did_you_mean

LOGGERS: Final = ("tensorboard", "csv", "mlflow", "wandb", "comet", "none")
"""Names of Lightning's loggers, and none."""
_OBJECT: Final = "Python object of "


@dataclass(frozen=True, kw_only=True)
class ExtensionConfig:
    """Loggers and callbacks of a training run."""

    PANEL: ClassVar = "Run"

    logger: str = "tensorboard"
    """Lightning logger of the run: tensorboard, csv, mlflow, wandb, comet or none; or your own, as
    package.module:factory. metrics.csv is written with every logger."""
    callbacks: Annotated[tuple[str, ...], Flag("--callback")] = ()
    """Your own Lightning callbacks, one package.module:factory for each callback."""

    def __post_init__(self) -> None:
        check_options(self)
        if self.logger not in LOGGERS and ":" not in self.logger and not is_object_name(self.logger):
            raise ConfigError(
                f"logger must be one of {', '.join(LOGGERS)}, or package.module:factory, found {self.logger!r}"
                f"{did_you_mean(self.logger, LOGGERS)}"
            )


def name_object(value: Any) -> str:
    """Return a description of an object that was passed in Python, for config.yaml, which can hold text only."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{_OBJECT}{kind.__module__}.{kind.__qualname__}"


def is_object_name(value: str) -> bool:
    """Return whether a text was made by `name_object`."""
    return value.startswith(_OBJECT)
