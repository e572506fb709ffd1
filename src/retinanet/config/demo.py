"""Options of `retinanet demo`."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What `retinanet demo` can be told."""

    output: Path = Path("runs/demo")
    """Folder for the scenes, the run and the report."""
    train_scenes: int = 400
    """Scenes to train on."""
    val_scenes: int = 60
    """Scenes to choose the best weights by."""
    test_scenes: int = 100
    """Held-out scenes that the final numbers come from."""
    epochs: int = 6
    """Passes over the training scenes."""
    workers: int = 1
    """Processes that load pictures; 0 loads them in the training process."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    seed: int = 0
    """The same seed gives the same scenes and the same training."""

    def __post_init__(self) -> None:
        for name in ("train_scenes", "val_scenes", "test_scenes", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("workers", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, found {getattr(self, name)}")
