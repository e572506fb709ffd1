"""Options of `retinanet study`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Interval

from retinanet.config.annotations import NoFlag
from retinanet.config.augment import AugmentConfig
from retinanet.config.data import DataConfig
from retinanet.config.extensions import ExtensionConfig
from retinanet.config.hardware import ComputeConfig, DeviceConfig
from retinanet.config.image import ImageConfig
from retinanet.config.loading import BatchConfig, LoadingConfig
from retinanet.config.loss import LossConfig
from retinanet.config.matching import MatchConfig
from retinanet.config.model import ModelConfig
from retinanet.config.optimiser import OptimiserConfig, ScheduleConfig
from retinanet.config.output import ExistingConfig, FolderConfig
from retinanet.config.part_tables import LOSSES
from retinanet.config.postprocess import PostprocessConfig
from retinanet.config.run import ImbalanceConfig, NonfiniteConfig, RandomConfig, RunConfig
from retinanet.config.start import FittedConfig, PresetConfig, StartConfig
from retinanet.config.tile import TileConfig
from retinanet.config.train import check_training_rules
from retinanet.config.validation import check_options
from retinanet.config.validation_data import ValidationConfig
from retinanet.errors import ConfigError
from retinanet.plugins import check_part


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What `retinanet study DATA` can be told: which set-ups to train, and all that `train` can be told about each.

    Without `val`, a fifth of the training images is kept for validation.
    """

    train: Annotated[Path, NoFlag()] = Path()
    """The data to train on. On the command line, it is the argument DATA."""
    losses: tuple[str, ...] = ("focal", "ce", "balanced_ce", "weighted", "hard_negative_mining", "ohem")
    """The losses to compare, each with the settings given for it."""
    without_prior: tuple[str, ...] = ()
    """Losses to train with the prior switched off (0.5) as well."""
    alphas: tuple[Annotated[float, Interval(ge=0, le=1)], ...] = ()
    """Values of alpha to train focal loss with, besides `alpha`; with `gammas`, every pair of the two."""
    gammas: tuple[Annotated[float, Ge(0)], ...] = ()
    """Values of gamma, likewise."""
    seeds: Annotated[int, Gt(0)] = 3
    """How often each is trained, with another seed each time; intervals need 2 or more."""
    keep_checkpoints: bool = False
    """Keep the weights of every run, not only of the first seed."""
    validation: ValidationConfig = field(default_factory=lambda: ValidationConfig(val=None))
    folder: FolderConfig
    existing: ExistingConfig = field(default_factory=ExistingConfig)
    base: PresetConfig = field(default_factory=PresetConfig)
    dataset: DataConfig = field(default_factory=DataConfig)
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
        if not self.losses:
            raise ConfigError("losses must name one loss or more, found none")
        for name in ("losses", "without_prior"):
            for value in getattr(self, name):
                check_part(name, value, LOSSES)
        check_training_rules(self.fitted, self.loss, self.run, self.existing)
