"""Options of `retinanet check`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Gt

from retinanet.config.data import DataConfig
from retinanet.config.hardware import DeviceConfig
from retinanet.config.image import ImageConfig
from retinanet.config.inference import NmsConfig
from retinanet.config.loading import BatchConfig, LoadingConfig
from retinanet.config.loss import LossConfig
from retinanet.config.matching import MatchConfig
from retinanet.config.model import ModelConfig
from retinanet.config.output import FolderConfig, ReportConfig
from retinanet.config.run import ImbalanceConfig, RandomConfig
from retinanet.config.start import PresetConfig
from retinanet.config.validation import check_options
from retinanet.config.validation_data import ValidationConfig


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Options of `retinanet check DATA` and `retinanet check MODEL DATA`.

    With a model, the network, anchors, loss and image size of its training are checked, and the options for these have
    no effect. With `val`, check also finds images that both datasets hold, and classes that only one dataset holds.
    """

    PANEL: ClassVar = "Check"

    hard: bool = False
    """With a model or COCO results: list and draw the examples with the highest loss, background and objects. Many of
    these are annotation errors."""
    hard_examples: Annotated[int, Gt(0)] = 50
    """With `--hard`: number of examples listed for background and number listed for objects."""
    base: PresetConfig = field(default_factory=PresetConfig)
    dataset: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=lambda: ValidationConfig(val=None))
    image: ImageConfig = field(default_factory=ImageConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    matching: MatchConfig = field(default_factory=MatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    nms: NmsConfig = field(default_factory=NmsConfig)
    files: ReportConfig = field(default_factory=ReportConfig)
    folder: FolderConfig = field(default_factory=lambda: FolderConfig(output=Path("runs/check")))
    imbalance: ImbalanceConfig = field(default_factory=ImbalanceConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    random: RandomConfig = field(default_factory=RandomConfig)

    def __post_init__(self) -> None:
        check_options(self)
        self.batch.require_number()
