"""The user's own objects in a run: a transform, callbacks and loggers, given in Python or by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from retinanet.config import is_object_name, name_object
from retinanet.data.user_transform import load_transform
from retinanet.errors import ConfigError
from retinanet.plugins import load_object
from retinanet.train.loggers import load_logger

if TYPE_CHECKING:
    from retinanet.config import TrainConfig
    from retinanet.data.user_transform import Transform


@dataclass(frozen=True, kw_only=True, slots=True)
class Extensions:
    """The user's own objects in a run.

    Args:
        transform: changes each training image.
        callbacks: of Lightning, in the user's order.
        loggers: of Lightning; empty: `config.logger` names the logger.
    """

    transform: Transform | None
    callbacks: list[Callback]
    loggers: list[Logger]


def object_names(**given: Any) -> dict[str, Any]:
    """Return the options of a config for arguments of `fit`, without those that were not given.

    A string stays as it is. An object becomes its description, which config.yaml can hold.
    """
    return {
        option: tuple(_name(item) for item in value) if option == "callbacks" else _name(value)
        for option, value in given.items()
        if value is not None and not (option == "callbacks" and len(value) == 0)
    }


def _name(value: Any) -> str:
    if value is False or (isinstance(value, (list, tuple)) and not value):
        return "none"
    if isinstance(value, (list, tuple)):
        value = value[0]
    return value if isinstance(value, str) else name_object(value)


def load_extensions(
    config: TrainConfig,
    *,
    transform: str | Transform | None,
    callbacks: Sequence[str | Callback],
    logger: str | Logger | Sequence[Logger] | Literal[False] | None,
) -> Extensions:
    """Return the objects given to `fit`, and those that `config` names.

    Raises:
        ConfigError: a name that cannot be loaded, or an object of the wrong type.
    """
    given = None if isinstance(transform, str) else transform
    if given is None and config.augmentation.transform is not None:
        _refuse_object_name("transform", config.augmentation.transform)
        given = load_transform(config.augmentation.transform)
    made = [_callback(item) for item in (callbacks or config.extensions.callbacks)]
    return Extensions(transform=given, callbacks=made, loggers=_loggers(config, logger))


def _loggers(config: TrainConfig, given: Any) -> list[Logger]:
    if given is None or isinstance(given, str):
        _refuse_object_name("logger", config.extensions.logger)
        given = load_logger(config.extensions.logger)
    loggers = [given] if isinstance(given, Logger) else list(given or ())
    for item in loggers:
        if not isinstance(item, Logger):
            raise ConfigError(f"logger: expected a Lightning logger, found {item!r}")
    return loggers


def _callback(item: str | Callback) -> Callback:
    made = item
    if isinstance(item, str):
        _refuse_object_name("callbacks", item)
        made = load_object(item, option="callbacks")()
    if not isinstance(made, Callback):
        raise ConfigError(f"callbacks {item}: expected a lightning.pytorch.callbacks.Callback, found {made!r}")
    if isinstance(made, ModelCheckpoint):
        raise ConfigError("callbacks: ModelCheckpoint is not supported: a run always writes best.ckpt and last.ckpt")
    return made


def _refuse_object_name(option: str, value: str) -> None:
    """Raise `ConfigError` where config.yaml holds the description of an object that was passed in Python."""
    if is_object_name(value):
        raise ConfigError(
            f"{option}: the run was started in Python with {value}, which config.yaml cannot hold. Resume it in Python "
            f"with fit(..., resume=True, {option}=...), or give {option} as package.module:factory"
        )
