"""Lightning's loggers by name, set up for a run folder."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from retinanet.config import to_dict
from retinanet.errors import ConfigError, UserError
from retinanet.plugins import call_factory
from retinanet.train.output_files import is_rank_zero, write_output

if TYPE_CHECKING:
    from retinanet.config import TrainConfig

PROJECT: Final = "retinanet"
"""Name of the experiment (MLflow) or project (Weights & Biases, Comet)."""
ID_FILE: Final = "logger.json"
"""File in the run folder with the id that a logging service assigned. A resumed training run logs under the same id."""


def _tensorboard(config: TrainConfig, run_id: str | None) -> Logger:
    return TensorBoardLogger(save_dir=config.folder.output, name=None, version="tensorboard")


def _csv(config: TrainConfig, run_id: str | None) -> Logger:
    # Lightning deletes an existing metrics.csv, so a resumed training run writes into a new folder.
    existing = len([path for pattern in ("csv", "csv-*") for path in config.folder.output.glob(pattern)])
    return CSVLogger(save_dir=config.folder.output, name="", version=f"csv-{existing + 1}" if existing else "csv")


def _mlflow(config: TrainConfig, run_id: str | None) -> Logger:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        # MLflow 3 refuses its file store unless this is set. The file store needs no server and no database.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = Path("mlruns").absolute().as_uri()
    return MLFlowLogger(experiment_name=PROJECT, run_name=config.folder.output.name, tracking_uri=uri, run_id=run_id)


def _wandb(config: TrainConfig, run_id: str | None) -> Logger:
    return WandbLogger(
        project=PROJECT, name=config.folder.output.name, save_dir=config.folder.output, id=run_id, resume="allow"
    )


def _comet(config: TrainConfig, run_id: str | None) -> Logger:
    return CometLogger(project=PROJECT, name=config.folder.output.name, experiment_key=run_id)


_MAKERS: Final[dict[str, Callable[[TrainConfig, str | None], Logger]]] = {
    "tensorboard": _tensorboard,
    "csv": _csv,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "comet": _comet,
}
_PACKAGES: Final = {
    "mlflow": ("mlflow", "'retinanet[mlflow]'"),
    "wandb": ("wandb", "wandb"),
    "comet": ("comet_ml", "comet-ml"),
}
"""Module that a logger needs, and the package that `pip install` installs for the module."""


def load_logger(name: str) -> Logger | None:
    """Return the logger made by the factory `package.module:factory`, or None if `name` is one of Lightning's loggers.

    Raises:
        ConfigError: the package of the logger is not installed, or the factory returns no logger.
    """
    if ":" not in name:
        module, package = _PACKAGES.get(name, ("lightning", ""))
        if importlib.util.find_spec(module) is None:
            raise ConfigError(f"logger {name} needs a package that is not installed: pip install {package}")
        return None
    logger = call_factory(name, option="logger")
    if not isinstance(logger, Logger):
        raise ConfigError(f"logger {name}: expected a Lightning logger, its factory returned {logger!r}")
    return logger


def make_logger(config: TrainConfig, *, resume: bool) -> Logger | bool:
    """Return the Lightning logger that `config.extensions.logger` names; False for "none"."""
    if config.extensions.logger == "none":
        return False
    path = config.folder.output / ID_FILE
    ids = json.loads(path.read_text()) if resume and path.exists() else {}
    with _explain_failure(config):
        return _MAKERS[config.extensions.logger](config, ids.get(config.extensions.logger))


@contextmanager
def _explain_failure(config: TrainConfig) -> Iterator[None]:
    """Turn an error of a logger, such as a server that cannot be reached, into a short error."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # each logger raises exceptions of its own
        raise ConfigError(
            f"logger {config.extensions.logger} cannot start ({type(error).__name__}: {error}): correct its settings, "
            "or choose another --logger"
        ) from error


def start_logging(loggers: Sequence[Logger], config: TrainConfig, *, resume: bool) -> None:
    """Log the options of a new training run, and store the id that a logging service assigned.

    TensorBoard gets no options: its folder holds curves only, and config.yaml holds the options.
    """
    if not is_rank_zero() or resume:
        return
    with _explain_failure(config):
        for logger in loggers:
            if not isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(_options(config))
    if config.extensions.logger in _PACKAGES:
        write_output(config.folder.output / ID_FILE, json.dumps({config.extensions.logger: loggers[0].version}))


def _options(config: TrainConfig) -> dict[str, Any]:
    return {name: value for name, value in to_dict(config).items() if name not in {"resume", "overwrite"}}
