"""The user's own transform, callbacks and loggers in a training run, passed as Python objects or by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger

from retinanet.config import is_object_name, name_object
from retinanet.data.user_transform import load_transform
from retinanet.errors import ConfigError
from retinanet.plugins import call_factory
from retinanet.train.loggers import load_logger

if TYPE_CHECKING:
    from types import FrameType

    import lightning as L

    from retinanet.config import TrainConfig
    from retinanet.data.user_transform import Transform


@dataclass(frozen=True, kw_only=True, slots=True)
class Extensions:
    """The user's own objects in a training run.

    Args:
        transform: function that changes each training image; None for none.
        callbacks: Lightning callbacks, in the user's order.
        loggers: Lightning loggers. If empty, `config.extensions.logger` names the logger.
    """

    transform: Transform | None
    callbacks: list[Callback]
    loggers: list[Logger]


def object_names(**arguments: Any) -> dict[str, Any]:
    """Return options of the config for the objects passed to `fit`; arguments left at None or () are omitted.

    A string remains unchanged. An object is replaced by its description, which config.yaml can hold.
    """
    return {
        option: tuple(_name(item) for item in value) if option == "callbacks" else _name(value)
        for option, value in arguments.items()
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
    """Return the objects passed to `fit`, completed with the objects that `config` names.

    Raises:
        ConfigError: a name cannot be loaded, or an object has the wrong type.
    """
    function = None if isinstance(transform, str) else transform
    if function is None and config.augmentation.transform is not None:
        _refuse_object_name("transform", config.augmentation.transform)
        function = load_transform(config.augmentation.transform)
    loaded_callbacks = [_callback(item) for item in (callbacks or config.extensions.callbacks)]
    return Extensions(transform=function, callbacks=loaded_callbacks, loggers=_loggers(config, logger))


def _loggers(config: TrainConfig, logger: Any) -> list[Logger]:
    if logger is None or isinstance(logger, str):
        _refuse_object_name("logger", config.extensions.logger)
        logger = load_logger(config.extensions.logger)
    loggers = [logger] if isinstance(logger, Logger) else list(logger or ())
    for item in loggers:
        if not isinstance(item, Logger):
            raise ConfigError(f"logger: expected a Lightning logger, found {item!r}")
    return loggers


def _callback(item: str | Callback) -> Callback:
    callback = item
    if isinstance(item, str):
        _refuse_object_name("callbacks", item)
        callback = call_factory(item, option="callbacks")
    if not isinstance(callback, Callback):
        raise ConfigError(f"callbacks {item}: expected a lightning.pytorch.callbacks.Callback, found {callback!r}")
    if isinstance(callback, ModelCheckpoint):
        raise ConfigError(
            "callbacks: ModelCheckpoint is not supported, because training always writes best.ckpt and last.ckpt: "
            "remove it"
        )
    return callback


def _refuse_object_name(option: str, value: str) -> None:
    """Raise `ConfigError` if config.yaml holds only the description of an object that was passed in Python."""
    if is_object_name(value):
        raise ConfigError(
            f"{option}: the training run was started in Python with {value}, which config.yaml cannot store. "
            f"Resume in Python with fit(..., resume=True, {option}=...), or set {option} to package.module:factory"
        )


@contextmanager
def named_in_errors(extensions: Extensions, trainer: L.Trainer) -> Iterator[None]:
    """Add a note to an exception of a callback or logger: its name, its method, the optimiser step and the epoch.

    `apply_transform` adds such a note to an exception of a transform, with the image.
    """
    try:
        yield
    except Exception as error:
        for frame, _ in walk_tb(error.__traceback__):
            if (name := _user_object(frame, extensions)) is not None:
                step, epoch = trainer.global_step, trainer.current_epoch + 1
                error.add_note(f"raised by {name} at optimiser step {step}, in epoch {epoch}")
                break
        raise


def is_user_error(error: BaseException) -> bool:
    """Return whether an exception has a note that it was raised by a transform, callback or logger of the user."""
    return any(note.startswith("raised by ") for note in getattr(error, "__notes__", ()))


def _user_object(frame: FrameType, extensions: Extensions) -> str | None:
    """Return the callback or logger that a frame calls or executes, with its method; None for another frame."""
    values, method = frame.f_locals, frame.f_code.co_name
    if method.startswith("_call_callback"):  # Lightning calls the hook, which need not be a method (LambdaCallback)
        value, method = values.get("callback"), values.get("hook_name", method.removeprefix("_call_callbacks_"))
    else:
        value = values.get(next(iter(frame.f_code.co_varnames[: frame.f_code.co_argcount]), ""))
    for kind, items in (("callback", extensions.callbacks), ("logger", extensions.loggers)):
        for item in items:
            if item is value:
                return f"{kind} {type(item).__module__}:{type(item).__qualname__} in {method}"
    return None
