"""Options of `retinanet compare`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge

from retinanet.config.data import DataConfig
from retinanet.config.hardware import DeviceConfig
from retinanet.config.inference import InferenceConfig, NmsConfig
from retinanet.config.loading import BatchConfig, LoadingConfig
from retinanet.config.output import ReportConfig
from retinanet.config.run import RandomConfig
from retinanet.config.tile import TileConfig
from retinanet.config.validation import check_options
from retinanet.config.value_range import ValueRangeConfig


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Options of `retinanet compare MODEL MODEL ...`. For a COCO results file, options of the model and of the images
    have no effect."""

    PANEL: ClassVar = "Compare"

    data: Path
    """Dataset to compare on, in any annotation format that `train` reads. For a YOLO data.yaml, the split `val`."""
    resamples: Annotated[int, Ge(100)] = 1000
    """Number of random resamples of the images, from which the intervals are computed."""
    timed_images: Annotated[int, Ge(0)] = 20
    """Number of images on which the speed is measured; 0: no measurement."""
    dataset: DataConfig = field(default_factory=DataConfig)
    files: ReportConfig = field(default_factory=ReportConfig)
    tiling: TileConfig = field(default_factory=TileConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    nms: NmsConfig = field(default_factory=NmsConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    value_range: ValueRangeConfig = field(default_factory=ValueRangeConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        check_options(self)
        self.batch.require_number()
