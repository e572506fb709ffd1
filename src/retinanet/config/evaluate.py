"""Options of `retinanet evaluate`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Interval

from retinanet.config.data import DataConfig
from retinanet.config.hardware import DeviceConfig
from retinanet.config.inference import InferenceConfig
from retinanet.config.loading import BatchConfig, LoadingConfig
from retinanet.config.output import ReportConfig
from retinanet.config.tile import TileConfig
from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `retinanet evaluate MODEL` can be told. Of these, a COCO results file as MODEL needs `data` alone."""

    data: Path
    """Data to evaluate on, in any format that `train` takes; data.yaml stands for its split `val`."""
    results: Path | None = None
    """File for the detections as COCO results; evaluating it gives the same numbers without the model."""
    confusion: bool = False
    """Also print which class is taken for which, at IoU 0.5."""
    confusion_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Score from which a detection counts in that table."""
    dataset: DataConfig = field(default_factory=DataConfig)
    files: ReportConfig = field(default_factory=ReportConfig)
    tiling: TileConfig = field(default_factory=TileConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    hardware: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        check_options(self)
        self.batch.require_number()
