"""Options of `retinanet prescribe`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Gt

from retinanet.config.annotations import MostUsed, NoFlag
from retinanet.config.augment import AugmentConfig
from retinanet.config.data import DataConfig
from retinanet.config.extensions import ExtensionConfig
from retinanet.config.hardware import ComputeConfig, DeviceConfig
from retinanet.config.image import ImageConfig
from retinanet.config.loading import BatchConfig, CacheConfig, LoadingConfig, WaitingConfig
from retinanet.config.loss import LossConfig
from retinanet.config.matching import MatchConfig
from retinanet.config.model import ModelConfig
from retinanet.config.optimiser import OptimiserConfig, ScheduleConfig
from retinanet.config.output import ExistingConfig, FolderConfig
from retinanet.config.postprocess import PostprocessConfig
from retinanet.config.run import ImbalanceConfig, NonfiniteConfig, RandomConfig, RunConfig
from retinanet.config.sampling import SamplingConfig
from retinanet.config.start import FittedConfig, PresetConfig, StartConfig
from retinanet.config.tile import TileConfig
from retinanet.config.train import check_training_rules
from retinanet.config.validation import check_options
from retinanet.config.validation_data import ValidationConfig
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PrescribeConfig:
    """Options of `retinanet prescribe DATA`: the time of the probe, and all options of `train`, which are the default
    that other settings are compared with.
    """

    PANEL: ClassVar = "Prescription"

    train: Annotated[Path, NoFlag()] = Path()
    """Training data: the argument DATA on the command line."""
    minutes: Annotated[float, Gt(0), MostUsed()] = 10.0
    """Time for all measurements and training runs of the probe, minutes of wall clock. More time allows more steps and
    more seeds, which show smaller differences."""
    validation: ValidationConfig
    folder: FolderConfig
    existing: ExistingConfig = field(default_factory=ExistingConfig)
    base: PresetConfig = field(default_factory=PresetConfig)
    dataset: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    tiling: TileConfig = field(default_factory=TileConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    start: StartConfig = field(default_factory=StartConfig)
    fitted: FittedConfig = field(default_factory=FittedConfig)
    matching: MatchConfig = field(default_factory=MatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    cached: CacheConfig = field(default_factory=CacheConfig)
    waiting: WaitingConfig = field(default_factory=WaitingConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    random: RandomConfig = field(default_factory=RandomConfig)
    run: RunConfig = field(default_factory=RunConfig)
    nonfinite: NonfiniteConfig = field(default_factory=NonfiniteConfig)
    imbalance: ImbalanceConfig = field(default_factory=ImbalanceConfig)
    extensions: ExtensionConfig = field(default_factory=ExtensionConfig)

    def __post_init__(self) -> None:
        check_options(self)
        if self.validation.val is None:
            raise ConfigError("val must name the validation data, found None")
        check_training_rules(self.fitted, self.loss, self.run, self.existing)
