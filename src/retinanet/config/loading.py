"""How images are loaded and batched."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from retinanet.config.annotations import Word
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LoadingConfig:
    """Workers that load images."""

    workers: Annotated[int, Ge(0)] = 2
    """Number of workers that load images: processes in training, threads in every other command. With 0, images are
    loaded by the main process."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Images per batch."""

    batch_size: Annotated[int, Ge(0), Word("auto", 0)] = 8
    """Number of images per batch on one device. In training, auto (0) measures how many images fit into memory and
    writes that number into config.yaml."""

    def __post_init__(self) -> None:
        check_options(self)

    def require_number(self) -> None:
        """Raise `ConfigError` for `auto`, which only training measures."""
        if self.batch_size == 0:
            raise ConfigError("batch_size must be above 0, found 0; only training takes auto")
