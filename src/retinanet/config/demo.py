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
    """What `retinanet demo` can be told."""

    train_scenes: Annotated[int, Gt(0)] = 400
    """Scenes to train on."""
    val_scenes: Annotated[int, Gt(0)] = 60
    """Scenes to choose the best weights by."""
    test_scenes: Annotated[int, Gt(0)] = 100
    """Held-out scenes that the final numbers come from."""
    epochs: Annotated[int, Gt(0)] = 6
    """Passes over the training scenes."""
    folder: FolderConfig = field(default_factory=lambda: FolderConfig(output=Path("runs/demo")))
    loading: LoadingConfig = field(default_factory=lambda: LoadingConfig(workers=1))
    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        check_options(self)
