"""Options of `retinanet study`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Interval

from retinanet.config.annotations import NoFlag
from retinanet.config.augment import AugmentConfig
from retinanet.config.data import DataConfig
from retinanet.config.extensions import ExtensionConfig
from retinanet.config.grouping import GroupingConfig
from retinanet.config.hardware import ComputeConfig, DeviceConfig
from retinanet.config.image import ImageConfig
from retinanet.config.loading import BatchConfig, CacheConfig, LoadingConfig, WaitingConfig
from retinanet.config.loss import LossConfig
from retinanet.config.matching import MatchConfig
from retinanet.config.model import ModelConfig
from retinanet.config.optimiser import OptimiserConfig, ScheduleConfig
from retinanet.config.output import ExistingConfig, FolderConfig
from retinanet.config.part_tables import ASSIGNERS, LOSSES
from retinanet.config.postprocess import PostprocessConfig
from retinanet.config.run import ImbalanceConfig, NonfiniteConfig, RandomConfig, RunConfig
from retinanet.config.sampling import SamplerName, SamplingConfig
from retinanet.config.start import FittedConfig, PresetConfig, StartConfig
from retinanet.config.tile import TileConfig
from retinanet.config.train import check_closing, check_training_rules
from retinanet.config.validation import check_options
from retinanet.config.validation_data import ValidationConfig
from retinanet.errors import ConfigError
from retinanet.plugins import check_part


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Options of `retinanet study DATA`: the training set-ups to compare, and all options of `train` for each of these.

    Without `val`, a fifth of the training images is used for validation.
    """

    PANEL: ClassVar = "Study"

    train: Annotated[Path, NoFlag()] = Path()
    """Training data: the argument DATA on the command line."""
    losses: tuple[str, ...] = ("focal", "ce", "balanced_ce", "weighted", "hard_negative_mining", "ohem")
    """Classification losses to compare, each with its own settings from the other options. With `assigners`,
    `samplers`, `set_ups`, `fractions` or `cross_validate`, the default is the configured loss alone."""
    without_prior: tuple[str, ...] = ()
    """Classification losses to train a second time with the prior switched off (`prior` 0.5)."""
    alphas: tuple[Annotated[float, Interval(ge=0, le=1)], ...] = ()
    """Additional values of alpha to train focal loss with. Together with `gammas`: every pair of alpha and gamma."""
    gammas: tuple[Annotated[float, Ge(0)], ...] = ()
    """Additional values of gamma to train focal loss with. Together with `alphas`: every pair of alpha and gamma."""
    assigners: tuple[str, ...] = ()
    """Assigners to compare. Each is one change of the first set-up."""
    samplers: tuple[SamplerName, ...] = ()
    """Samplers to compare. Each is one change of the first set-up."""
    set_ups: tuple[str, ...] = ()
    """Other changes of the first set-up to compare: one text for each, with any options of `train`, such as
    "anchors=auto" or "positive_iou=0.45, negative_iou=0.35". Lists stand in brackets: "class_alpha=[0.5, 0.9]"."""
    seeds: Annotated[int, Gt(0)] = 3
    """Number of training runs of each set-up, with seeds that count up from `seed`. Confidence intervals need at least
    2."""
    fractions: tuple[Annotated[float, Interval(gt=0, le=1)], ...] = ()
    """Fractions of the training images to train on, such as 0.1 0.25 0.5 1, instead of comparing set-ups. The result is
    a learning curve: would more images help? All runs have about the same number of steps."""
    cross_validate: Annotated[int | None, Ge(2)] = None
    """Number of folds for cross-validation, instead of comparing set-ups. One run is trained for each fold. The
    detections of each image by the network that was not trained on it are written to out_of_fold.json."""
    keep_checkpoints: bool = False
    """Keep best.ckpt of all seeds. By default, only the first seed of each set-up keeps best.ckpt."""
    validation: ValidationConfig = field(default_factory=lambda: ValidationConfig(val=None))
    folder: FolderConfig
    existing: ExistingConfig = field(default_factory=ExistingConfig)
    base: PresetConfig = field(default_factory=PresetConfig)
    dataset: DataConfig = field(default_factory=DataConfig)
    grouping: GroupingConfig = field(default_factory=GroupingConfig)
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
        if not self.losses:
            raise ConfigError("losses must name at least one loss, found none")
        for name in ("losses", "without_prior"):
            for value in getattr(self, name):
                check_part(name, value, LOSSES)
        for value in self.assigners:
            check_part("assigners", value, ASSIGNERS)
        if self.cross_validate is not None and (self.fractions or self.validation.val is not None):
            other = "fractions" if self.fractions else "val"
            raise ConfigError(f"cross_validate and {other} exclude each other: each fold validates on its own images")
        check_training_rules(self.fitted, self.loss, self.run, self.existing)
        check_closing(self.augmentation, self.schedule)
