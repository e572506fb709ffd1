"""How images are loaded and batched."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge

from retinanet.config.annotations import MostUsed, Word
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LoadingConfig:
    """Workers that load images."""

    PANEL: ClassVar = "Data"

    workers: Annotated[int, Ge(0)] = 2
    """Number of workers that load images: processes in training, threads in other commands. With 0, the main process
    loads the images."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Whether training keeps decoded images in memory."""

    PANEL: ClassVar = "Data"

    cache: Literal["none", "ram"] = "none"
    """ram: decode every training and validation image once, before the first step, and keep the pixels in memory. The
    results are those of none, which reads the files in every epoch. For small datasets: training is refused if the
    images of all processes take more than 80 % of the free memory."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class WaitingConfig:
    """How long training waits for its workers."""

    PANEL: ClassVar = "Data"

    worker_timeout: Annotated[float, Ge(0)] = 300.0
    """Stop training if the workers deliver no batch within this number of seconds; 0: wait without a limit."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Images per batch."""

    PANEL: ClassVar = "Data"

    batch_size: Annotated[int, Ge(0), Word("auto", 0), MostUsed()] = 8
    """Number of images per batch on one device. In training, auto (0) measures how many images fit into memory and
    writes that number into config.yaml."""

    def __post_init__(self) -> None:
        check_options(self)

    def require_number(self) -> None:
        """Raise `ConfigError` for `auto`, which only training measures."""
        if self.batch_size == 0:
            raise ConfigError("batch_size must be above 0, found 0 (auto): only training measures the batch size")
