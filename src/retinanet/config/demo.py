"""Options of `retinanet demo`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Gt

from retinanet.config.hardware import DeviceConfig
from retinanet.config.loading import LoadingConfig
from retinanet.config.output import FolderConfig
from retinanet.config.run import RandomConfig
from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Options of `retinanet demo`."""

    train_scenes: Annotated[int, Gt(0)] = 400
    """Number of scenes to train on."""
    val_scenes: Annotated[int, Gt(0)] = 60
    """Number of scenes for validation. The checkpoint with the best AP on the validation scenes is kept."""
    test_scenes: Annotated[int, Gt(0)] = 100
    """Number of held-out scenes that the final metrics are measured on."""
    epochs: Annotated[int, Gt(0)] = 6
    """Number of passes over the training scenes."""
    folder: FolderConfig = field(default_factory=lambda: FolderConfig(output=Path("runs/demo")))
    loading: LoadingConfig = field(default_factory=lambda: LoadingConfig(workers=1))
    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        check_options(self)
