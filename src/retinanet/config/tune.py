"""Options of `retinanet tune`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Interval

from retinanet.config.annotations import Flag
from retinanet.config.data import DataConfig
from retinanet.config.hardware import DeviceConfig
from retinanet.config.loading import BatchConfig, LoadingConfig
from retinanet.config.output import ExistingConfig, ReportConfig
from retinanet.config.run import RandomConfig
from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """Options of `retinanet tune MODEL DATA`."""

    PANEL: ClassVar = "Tuning"

    output: Annotated[Path, Flag("-o")]
    """Checkpoint file to write: the model with calibrated scores and tuned thresholds."""
    aim: str = "f1"
    """Aim of the thresholds: recall=R, precision=P, f1, or cost=M:F with the costs of a missed object and of a false
    detection. recall and precision hold on new images, within the limits that the result states. f1 and cost are
    optimal on the data."""
    per_class: bool = False
    """Each class has the aim for itself. By default, the aim concerns the objects of all classes together."""
    confidence: Annotated[float, Interval(ge=0.5, le=0.999)] = 0.95
    """Probability with which an aim for precision holds on new images."""
    calibrate: bool = True
    """Calibrate the scores of each class, so that a score is the probability that the detection is right at IoU 0.5.
    AP of a class does not change."""
    dataset: DataConfig = field(default_factory=DataConfig)
    files: ReportConfig = field(default_factory=ReportConfig)
    existing: ExistingConfig = field(default_factory=ExistingConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        check_options(self)
        self.batch.require_number()
