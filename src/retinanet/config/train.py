"""Options of `retinanet train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from retinanet.config.augment import AugmentConfig
from retinanet.config.data import DataConfig
from retinanet.config.extensions import ExtensionConfig
from retinanet.config.image import ImageConfig
from retinanet.config.loss import LossConfig
from retinanet.config.matching import MatchConfig
from retinanet.config.model import ModelConfig
from retinanet.config.postprocess import PostprocessConfig
from retinanet.config.presets import PRESETS, PresetName
from retinanet.config.tile import TileConfig
from retinanet.config.validation import check_between, check_choice, check_finite, check_positive
from retinanet.errors import ConfigError

FreezeName = Literal["none", "backbone", "backbone+fpn"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    ModelConfig,
    MatchConfig,
    LossConfig,
    PostprocessConfig,
    ImageConfig,
    AugmentConfig,
    DataConfig,
    TileConfig,
    ExtensionConfig,
):
    """Everything that `retinanet train` can be told. `config.yaml` in the run folder holds all of it."""

    train: Path
    """Training data: a COCO .json, a Pascal VOC folder or ImageSets .txt, a YOLO data.yaml, a .csv, or an export of
    Roboflow, Label Studio, CVAT or labelme."""
    val: Path
    """Validation data, likewise; data.yaml stands for the split `val` here and for `train` there."""
    output: Path
    """The run's folder."""
    preset: PresetName = "default"
    """default (ResNet-50), paper (the same, alpha 0.25) or small (EfficientNet-Lite0 at 512, for a laptop)."""
    val_images: Path | None = None
    """Folder of the validation pictures; `images` unless given."""
    anchors: Literal["given", "auto"] = "given"
    """auto: fit anchor_sizes, anchor_ratios and levels to the training data instead of taking them as given."""
    balance_classes: bool = False
    """Set `class_alpha` from how often each class occurs: rarer classes get more weight."""
    measure_imbalance: int = 4
    """How many times an epoch the shares of the loss are measured, for the report; 0: never."""
    easy_from: float = 0.5
    """There, an example counts as easy where its own answer has at least this probability."""
    workers: int = 2
    """Processes that load pictures; 0 loads them in the training process."""
    pretrained: bool = True
    """Start from ImageNet weights of the backbone."""
    backbone_weights: Path | None = None
    """A local file with those weights (.safetensors, .pth), where nothing can be downloaded."""
    freeze_batchnorm: bool = True
    """Keep the BatchNorm of a pretrained backbone as it is (statistics and affine weights)."""
    start_from: Path | None = None
    """Checkpoint to start from instead of ImageNet weights (`--from`): its network and normalisation are used, and its
    knowledge of the classes that stay is kept."""
    freeze: FreezeName = "none"
    """Parts that stay as they are: none, backbone, or backbone+fpn. For a little data, with `start_from`."""
    epochs: int = 12
    """Passes over the training data."""
    max_steps: int = -1
    """Stop after so many optimiser steps; -1: no such limit."""
    batch_size: int = 8
    """Pictures of one step on one device; auto (0): as many as fit into memory, measured; a number in config.yaml."""
    accumulate: int = 1
    """Batches whose gradients are added up before the optimiser steps."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW."""
    lr: float = 0.01
    """Learning rate for `lr_batch_size` pictures a step; scaled in proportion to those there are."""
    lr_batch_size: int = 16
    """The pictures a step, over all devices and accumulated batches, that `lr` is meant for."""
    backbone_lr_factor: float = 1.0
    """Factor on the learning rate of the backbone."""
    weight_decay: float = 1e-4
    """Weight decay; biases and norm layers have none."""
    schedule: Literal["step", "cosine"] = "step"
    """After the warm-up: a tenth at 2/3 and a hundredth at 8/9 of the steps, or half a cosine down to 0."""
    warmup_steps: int = 500
    """Steps of linear warm-up; at most a tenth of all steps."""
    clip_gradients: float = 10.0
    """Largest norm of the gradient; 0: no clipping."""
    ema: float = 0.0
    """Decay of the running average of the weights that is evaluated and saved; 0: none."""
    precision: Literal["32", "bf16", "fp16"] = "32"
    """Number format of the network: float32, or mixed precision in bfloat16 or float16. The loss is float32 always."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    devices: int = 1
    """How many devices; 0: all there are."""
    nodes: int = 1
    """How many machines, under SLURM; torchrun says it itself, and how many devices."""
    sync_batchnorm: bool = False
    """With several GPUs: BatchNorm over the batch of all of them, where it is trained (--no-freeze-batchnorm)."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """At a loss, gradient or output that is NaN or infinite: stop, with a record of the step; or skip the step."""
    max_skipped: int = 20
    """Stop all the same after more skipped steps than this in all."""
    max_skipped_in_a_row: int = 3
    """Or after more than this one after the other."""
    patience: int = 0
    """Stop after so many evaluations without a better AP; 0: never."""
    evaluate_every: int = 1
    """Evaluate after every so many epochs."""
    log_every: int = 10
    """Write the losses down every so many steps."""
    seed: int = 0
    """The same seed and options give the same run."""
    resume: bool = False
    """Go on from last.ckpt in the run's folder."""
    overwrite: bool = False
    """Replace a run that is already in the run's folder."""

    def __post_init__(self) -> None:
        check_finite(self)
        for base in TrainConfig.__bases__:
            base.__post_init__(self)  # type: ignore[attr-defined]
        check_choice(
            self,
            preset=tuple(PRESETS),
            anchors=("given", "auto"),
            freeze=get_args(FreezeName),
            optimizer=("sgd", "adamw"),
            schedule=("step", "cosine"),
            precision=("32", "bf16", "fp16"),
            on_nonfinite=("stop", "skip"),
        )
        check_positive(self, "epochs", "accumulate", "lr", "lr_batch_size", "evaluate_every", "log_every", "nodes")
        check_between(self, 0.0, 0.999999, "ema")
        check_between(self, 0.000001, 0.999999, "easy_from")
        names = (
            "batch_size",
            "workers",
            "measure_imbalance",
            "backbone_lr_factor",
            "weight_decay",
            "warmup_steps",
            "clip_gradients",
            "patience",
            "max_skipped",
            "max_skipped_in_a_row",
            "devices",
        )
        for name in names:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, found {getattr(self, name)}")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ConfigError(f"max_steps must be above 0, or -1 for no limit, found {self.max_steps}")
        if self.balance_classes and self.class_alpha:
            raise ConfigError("balance_classes computes class_alpha: give one of them")
        if self.resume and self.overwrite:
            raise ConfigError("resume goes on with a run and overwrite throws it away: give one of them")
