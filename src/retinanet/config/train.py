"""Options of `retinanet train`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

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
from retinanet.config.validation import check_options
from retinanet.config.validation_data import ValidationConfig
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """All options of `retinanet train`. `config.yaml` in the run folder holds them without nesting.

    `resolve(TrainConfig, {"train": ..., "lr": 0.1, ...})` builds the config from option names.
    """

    PANEL: ClassVar = "Data"

    train: Path
    """Training data: a COCO .json, a Pascal VOC folder or ImageSets .txt, a YOLO data.yaml, a .csv, an export of
    Roboflow, Label Studio, CVAT or labelme, or a download of KITTI, VisDrone, DOTA, LVIS or Open Images."""
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
        check_closing(self.augmentation, self.schedule)

    @property
    def val(self) -> Path:
        """The validation data."""
        assert self.validation.val is not None  # noqa: S101 - __post_init__ refuses None
        return self.validation.val


def check_training_rules(fitted: FittedConfig, loss: LossConfig, run: RunConfig, existing: ExistingConfig) -> None:
    """Raise `ConfigError` for options of a training run that contradict each other."""
    if fitted.balance_classes and loss.class_alpha:
        raise ConfigError("balance_classes and class_alpha exclude each other: balance_classes computes class_alpha")
    if run.resume and existing.overwrite:
        raise ConfigError("resume and overwrite exclude each other: resume continues the run, overwrite replaces it")


def check_closing(augmentation: AugmentConfig, schedule: ScheduleConfig) -> None:
    """Raise `ConfigError` if copy-paste, mosaic and mixup would be off for more epochs than training has."""
    if schedule.time_budget is None and augmentation.close_augment > schedule.epochs:
        raise ConfigError(
            f"close_augment must be at most epochs, {schedule.epochs}, found {augmentation.close_augment}: give fewer "
            "epochs without copy-paste, mosaic and mixup, or train for more epochs"
        )
