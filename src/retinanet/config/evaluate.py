"""Options of `retinanet evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from retinanet.config.data import DataConfig
from retinanet.config.predict import Precision
from retinanet.config.tile import TileConfig
from retinanet.config.validation import check_between, check_choice, check_positive
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataConfig, TileConfig):
    """What `retinanet evaluate MODEL` can be told. Of these, a COCO results file as MODEL needs `data` alone."""

    data: Path
    """Data to evaluate on, in any format that `train` takes; data.yaml stands for its split `val`."""
    json: Path | None = None
    """File for the numbers as JSON."""
    results: Path | None = None
    """File for the detections as COCO results; evaluating it gives the same numbers without the model."""
    tta: bool = False
    """Test-time augmentation: look at each picture flipped and at 0.8 and 1.25 times its size too."""
    confusion: bool = False
    """Also print which class is taken for which, at IoU 0.5."""
    confusion_threshold: float = 0.5
    """Score from which a detection counts in that table."""
    report: Path | None = None
    """File for a report: numbers, curves, confusion matrix, the best and the worst pictures."""
    batch_size: int = 8
    """Pictures that go through the network at once."""
    workers: int = 2
    """Threads that load pictures ahead of the network; 0 loads them in between."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    precision: Precision = "32"
    """Number format of the network: 32, or bf16 (bfloat16), which takes half the time where the processor has it."""

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        TileConfig.__post_init__(self)
        check_positive(self, "batch_size")
        check_choice(self, precision=get_args(Precision))
        check_between(self, 0.0, 1.0, "confusion_threshold")
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, found {self.workers}")
