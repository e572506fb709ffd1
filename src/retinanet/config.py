"""Every option of the project and its default: the only place a default lives.

A command's flags, its YAML keys and the Python arguments are the fields of these dataclasses, name for name.
`resolve` builds one from a preset, and refuses what it does not know with the nearest name that it does.
"""

import dataclasses
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
CONFIG_VERSION: Final = 1

PresetName = Literal["default", "paper", "small"]
LossName = Literal[
    "focal", "ce", "balanced_ce", "weighted", "hard_negative_mining", "ohem", "quality_focal", "varifocal"
]
FreezeName = Literal["none", "backbone", "backbone+fpn"]
BoxLossName = Literal["smooth_l1", "l1", "giou"]
Precision = Literal["32", "bf16"]
DataFormat = Literal["coco", "voc", "yolo", "csv", "labelme", "label_studio", "cvat"]


class UserError(ValueError):
    """Something that the user can mend: the command line prints its message alone, without a traceback."""


class ConfigError(UserError):
    """An option that does not exist, or a value that it cannot take."""


def _finite(config: Any) -> None:
    """Refuse NaN and infinity, which pass most comparisons, in every number of a config."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{field.name} must be finite, found {number}")


def _positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise ConfigError(f"{name} must be above 0, found {value}")


def _between(config: object, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} must be between {low} and {high}, found {value}")


def _one_of(config: object, **choices: tuple[str, ...]) -> None:
    for name, allowed in choices.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ConfigError(
                f"{name} must be one of {', '.join(allowed)}, found {value!r}{did_you_mean(value, allowed)}"
            )


def did_you_mean(found: object, known: Any) -> str:
    """Return '. Did you mean X?' for the nearest known word, or nothing."""
    near = difflib.get_close_matches(str(found), [str(name) for name in known], n=1, cutoff=0.5)
    return f". Did you mean {near[0]!r}?" if near else ""


EXTRAS: Final = {
    **dict.fromkeys(("torch", "torchvision", "timm", "lightning", "tensorboard", "safetensors"), "train"),
    **dict.fromkeys(("onnx", "onnxscript", "nncf"), "export"),
    "onnxruntime": "onnx",
    "openvino": "openvino",
    **dict.fromkeys(("ray", "pyarrow", "fsspec"), "scale"),
    **dict.fromkeys(("fastapi", "uvicorn", "python_multipart", "prometheus_client"), "serve"),
}
"""Which of retinanet's extras brings a package that not every use of it needs."""


def explain_missing(error: ModuleNotFoundError, what: str) -> UserError:
    """Return what to install for `what`, where the missing module belongs to an extra; else raise the error again."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    return UserError(f"{what} needs {module}, which is not installed: pip install 'retinanet[{EXTRAS[module]}]'")


def some_of(names: Sequence[str]) -> str:
    """Return the first ten names with commas between them, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: backbone, feature pyramid, heads and anchors."""

    backbone: str = "resnet50"
    """timm's name of the backbone; any model with feature maps at strides 8, 16 and 32."""
    stride_in_1x1: bool = False
    """Bottleneck blocks halve the map in their first, 1x1 convolution, as MSRA's ResNets and Detectron2's do."""
    levels: tuple[int, ...] = (3, 4, 5, 6, 7)
    """Pyramid levels; level l has stride 2^l. Consecutive, starting at 3, or at 2 for very small objects."""
    p6_from: Literal["c5", "p5"] = "c5"
    """What level 6 is computed from: the backbone's last map (the paper) or the pyramid's."""
    fpn_width: int = 256
    """Channels of the feature pyramid."""
    head_width: int = 256
    """Channels of the hidden layers of both heads."""
    head_depth: int = 4
    """Hidden 3x3 convolutions of each head."""
    head_norm: Literal["none", "group"] = "none"
    """Normalisation in the heads: none (the paper) or GroupNorm."""
    prior: float = 0.01
    """pi: the probability that every anchor gives every class before training. 0.5 switches the prior off."""
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of the square anchor of each level, input pixels."""
    anchor_scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
    """Factors on that size, at every level."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors, the area kept."""
    anchor_style: Literal["exact", "torchvision"] = "exact"
    """exact; or as torchvision's models were trained: sizes and corners rounded to whole pixels, strides inferred from
    the sizes of input and feature maps, so that they fall short where the input is no multiple of the coarsest."""

    def __post_init__(self) -> None:
        _finite(self)
        _positive(self, "fpn_width", "head_width")
        _one_of(self, p6_from=("c5", "p5"), head_norm=("none", "group"), anchor_style=("exact", "torchvision"))
        if not 0 <= self.head_depth <= 16:
            raise ConfigError(f"head_depth must be between 0 and 16, found {self.head_depth}")
        if not 0 < self.prior < 1:
            raise ConfigError(f"prior is a probability above 0 and below 1, found {self.prior}")
        first = self.levels[0] if self.levels else None
        if first not in {2, 3} or self.levels != tuple(range(first, first + len(self.levels))) or self.levels[-1] < 5:
            raise ConfigError(f"levels must be consecutive, start at 2 or 3 and reach 5, found {self.levels}")
        if self.levels[-1] > 8:
            raise ConfigError(f"levels end at 8 (stride 256) at the most, found {self.levels}")
        if len(self.anchor_sizes) != len(self.levels):
            raise ConfigError(
                f"anchor_sizes needs one size for each of the {len(self.levels)} levels, found {self.anchor_sizes}"
            )
        for name in ("anchor_sizes", "anchor_scales", "anchor_ratios"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0:
                raise ConfigError(f"{name} must be one or more numbers above 0, found {getattr(self, name)}")

    @property
    def anchors_per_position(self) -> int:
        """A in the paper's figure 3: anchors at every position of a level."""
        return len(self.anchor_scales) * len(self.anchor_ratios)


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """Which anchors answer for which objects."""

    positive_iou: float = 0.5
    """An anchor with at least this IoU with an object is positive."""
    negative_iou: float = 0.4
    """An anchor below this IoU with all objects is negative; between the two it is ignored."""
    low_quality_matches: bool = False
    """Also make the best anchors of an object positive that no anchor reaches (torchvision's and Detectron2's way)."""

    def __post_init__(self) -> None:
        _between(self, 0.0, 1.0, "positive_iou", "negative_iou")
        if self.negative_iou > self.positive_iou:
            raise ConfigError(f"negative_iou {self.negative_iou} is above positive_iou {self.positive_iou}")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The two losses and how they are summed."""

    loss: LossName = "focal"
    """Classification loss: focal; cross-entropy (ce), alpha-balanced (balanced_ce) or with the negatives turned down
    (weighted, as YOLO); of the hardest examples only (hard_negative_mining as SSD, ohem); or towards the IoU of the
    predicted box (quality_focal, varifocal)."""
    alpha: float = 0.75
    """Weight of the positives; the negatives have 1 - alpha. The paper's best on COCO is 0.25."""
    class_alpha: tuple[float, ...] = ()
    """An alpha for each class, in the order of the class ids, instead of `alpha`."""
    gamma: float = 2.0
    """How strongly focal loss turns down what is already classified well; 0 gives alpha-balanced cross-entropy."""
    negative_weight: float = 0.5
    """Weight of the negatives in the loss `weighted`; the positives have 1."""
    negatives_per_positive: float = 3.0
    """How many negatives hard example mining keeps for each positive of a picture."""
    ohem_examples: int = 512
    """How many anchors of a picture the loss `ohem` keeps at the most."""
    ohem_nms: float = 0.7
    """Of two anchors that overlap by more than this IoU, `ohem` considers the one with the higher loss."""
    ohem_balanced: bool = False
    """Let `ohem` keep no more than `negatives_per_positive` negatives for each positive."""
    label_smoothing: float = 0.0
    """What is taken off the target 1 of the positives; the background's target stays 0."""
    box_loss: BoxLossName = "smooth_l1"
    """Box loss: on the offsets (smooth_l1, l1) or on the boxes themselves (giou)."""
    smooth_l1_beta: float = 1 / 9
    """Where smooth L1 turns from square to straight."""
    box_loss_weight: float = 1.0
    """Weight of the box loss in the sum."""
    normaliser: Literal["batch", "image"] = "batch"
    """Divide by the positives of the whole batch on all ranks, or of each picture on its own (torchvision's way)."""

    def __post_init__(self) -> None:
        _finite(self)
        _one_of(
            self,
            loss=get_args(LossName),
            box_loss=("smooth_l1", "l1", "giou"),
            normaliser=("batch", "image"),
        )
        _between(self, 0.0, 1.0, "alpha")
        _positive(self, "smooth_l1_beta", "negatives_per_positive", "ohem_examples")
        _between(self, 0.0, 1.0, "ohem_nms")
        for name in ("gamma", "box_loss_weight", "negative_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be 0 or more, found {getattr(self, name)}")
        if any(not 0 <= value <= 1 for value in self.class_alpha):
            raise ConfigError(f"class_alpha must hold numbers between 0 and 1, found {self.class_alpha}")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing must be 0 or more and below 1, found {self.label_smoothing}")
        if self.label_smoothing and self.loss in {"quality_focal", "varifocal"}:
            raise ConfigError(f"label_smoothing has no meaning for {self.loss}: its targets are IoUs already")


@dataclass(frozen=True, kw_only=True)
class PostprocessConfig:
    """From dense predictions to detections."""

    score_threshold: float = 0.05
    """Detections below this score are dropped before NMS."""
    nms_threshold: float = 0.5
    """Of two boxes of a class that overlap by more than this IoU, the better one stays."""
    candidates_per_level: int = 1000
    """How many of the best scores of each level are decoded."""
    max_detections: int = 100
    """Detections kept in a picture."""
    clip_before_nms: bool = True
    """Cut boxes off at the picture's edges before NMS (torchvision's way), or after it (Detectron2's)."""

    def __post_init__(self) -> None:
        _between(self, 0.0, 1.0, "score_threshold", "nms_threshold")
        _positive(self, "candidates_per_level", "max_detections")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How a picture becomes the network's input: the same to train, predict and serve."""

    image_size: int = 800
    """Shorter side of the resized picture, pixels, unless the longer side would pass `max_size`."""
    max_size: int = 1333
    """Longest side of the resized picture, pixels."""
    size_divisor: int = 32
    """Batches are padded at the right and bottom to multiples of this."""
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each channel, RGB in [0, 1]. `train` takes the pretrained backbone's own unless it is given."""
    image_std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of each channel, likewise."""

    def __post_init__(self) -> None:
        _finite(self)
        _positive(self, "image_size", "max_size", "size_divisor")
        if self.max_size < self.image_size:
            raise ConfigError(f"max_size {self.max_size} is below image_size {self.image_size}")
        if min(self.image_std) <= 0:
            raise ConfigError(f"image_std must be above 0, found {self.image_std}")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a picture between the disk and the network while training. 0 switches a step off."""

    augment: bool = True
    """False switches all of it off."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    vertical_flip: float = 0.0
    """Probability of a vertical flip; for pictures without an up and down, as under a microscope."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Each picture is resized by a random factor between these two on top of `image_size`."""
    multi_scale: tuple[int, ...] = ()
    """Each batch takes its `image_size` from this list; empty: always `image_size`."""
    color_jitter: float = 0.0
    """Strength of random brightness, contrast, saturation (this) and hue (a tenth of this)."""
    crop: float = 0.0
    """Probability of a random crop; it keeps at least one object whole and drops those whose centre it cuts off."""
    min_crop: float = 0.5
    """The smallest crop, as a share of each side."""

    def __post_init__(self) -> None:
        _finite(self)
        _between(self, 0.0, 1.0, "flip", "vertical_flip", "color_jitter", "crop")
        if not 0 < self.min_crop <= 1:
            raise ConfigError(f"min_crop must be above 0 and at most 1, found {self.min_crop}")
        low, high = self.scale_jitter
        if not 0 < low <= high:
            raise ConfigError(f"scale_jitter needs two factors above 0, the smaller first, found {self.scale_jitter}")
        if any(size <= 0 for size in self.multi_scale):
            raise ConfigError(f"multi_scale holds sizes in pixels above 0, found {self.multi_scale}")


@dataclass(frozen=True, kw_only=True)
class ClassesConfig:
    """Where the pictures of a data set lie, and which of its objects are wanted."""

    images: Path | None = None
    """Folder of the pictures, where they do not lie beside the annotations."""
    classes: tuple[str, ...] = ()
    """Classes to keep (names with spaces or commas between them); the objects of the others are left out."""
    ignore_classes: tuple[str, ...] = ()
    """Classes whose objects are left out, likewise."""
    rename: tuple[str, ...] = ()
    """New names of classes, old=new; two classes that are renamed to one become one. Applied first."""
    skip_bad: bool = False
    """Go on without faulty pictures and boxes, and say how many, rather than stop."""
    allow_outside: bool = False
    """Follow relative paths in the annotations that climb (..) out of their own folder, the folder above it and
    `images`. For annotations that you trust: those of a stranger could draw other pictures of the disk into reports."""

    def __post_init__(self) -> None:
        for pair in _separate(self.rename):
            if not all(pair.partition("=")):
                raise ConfigError(f"rename needs old=new, found {pair!r}")

    @property
    def reading(self) -> dict[str, Any]:
        """What `data.read` is told by these options, `images` apart: training and validation data may differ in it."""
        return {
            "keep": _separate(self.classes),
            "ignore": _separate(self.ignore_classes),
            "rename": dict(pair.split("=", 1) for pair in _separate(self.rename)),
            "allow_outside": self.allow_outside,
        }


@dataclass(frozen=True, kw_only=True)
class DataConfig(ClassesConfig):
    """How data sets are read."""

    format: DataFormat | None = None
    """What to read the data as: coco, voc, yolo, csv, labelme, label_studio or cvat; recognised unless given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format is not None:
            _one_of(self, format=get_args(DataFormat))

    @property
    def reading(self) -> dict[str, Any]:
        """See `ClassesConfig`; with the format."""
        return {**super().reading, "format": self.format}


def _separate(values: tuple[str, ...]) -> list[str]:
    """Return the names in values such as 'a,b'."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """How large pictures are cut into tiles, to train and to predict: the same, or else objects change their size."""

    tile: int | None = None
    """Side of the tiles that pictures are cut into, original pixels; 0: not cut. A model knows the tiles that it was
    trained with and takes them unless others are given. Each tile is resized as a picture of its own, and the whole
    picture is looked at as well, for what is larger than a tile."""
    overlap: float = 0.2
    """How much of a tile its neighbour shows too, at least: more than the small objects need."""

    def __post_init__(self) -> None:
        if self.tile and self.tile < 32:
            raise ConfigError(f"tile must be 0 or at least 32 pixels, found {self.tile}")
        if not 0 <= self.overlap < 0.9:
            raise ConfigError(f"overlap must be 0 or more and below 0.9, found {self.overlap}")

    @property
    def whole_from(self) -> float:
        """Pixels; what is longer is looked for in the picture as a whole too."""
        return max(0.5, self.overlap) * (self.tile or 0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    ModelConfig, MatchConfig, LossConfig, PostprocessConfig, ImageConfig, AugmentConfig, DataConfig, TileConfig
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
        _finite(self)
        for base in TrainConfig.__bases__:
            base.__post_init__(self)  # type: ignore[attr-defined]
        _one_of(
            self,
            preset=tuple(PRESETS),
            anchors=("given", "auto"),
            freeze=get_args(FreezeName),
            optimizer=("sgd", "adamw"),
            schedule=("step", "cosine"),
            precision=("32", "bf16", "fp16"),
            on_nonfinite=("stop", "skip"),
        )
        _positive(self, "epochs", "accumulate", "lr", "lr_batch_size", "evaluate_every", "log_every", "nodes")
        _between(self, 0.0, 0.999999, "ema")
        _between(self, 0.000001, 0.999999, "easy_from")
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


PRESETS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "paper": {"alpha": 0.25},
    "small": {
        "backbone": "tf_efficientnet_lite0",
        "fpn_width": 128,
        "head_width": 128,
        "head_depth": 2,
        "head_norm": "group",
        "image_size": 512,
        "max_size": 512,
        "box_loss": "giou",
        "box_loss_weight": 2.0,
        "batch_size": 4,
        "optimizer": "adamw",
        "lr": 4e-4,
        "lr_batch_size": 4,
        "weight_decay": 1e-2,
        "schedule": "cosine",
        "warmup_steps": 100,
        "ema": 0.998,
    },
}
"""What each preset sets differently from the defaults above."""

C = TypeVar("C")


def resolve(cls: type[C], options: dict[str, Any]) -> C:
    """Build a config from named options on top of the preset that they name.

    Values from YAML (lists, strings for paths) are brought to the field's type.

    Raises:
        ConfigError: an unknown name (with the nearest known one) or a bad value.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in options:
        if name not in fields:
            raise ConfigError(f"unknown option {name!r}{did_you_mean(name, fields)}")
    preset = options.get("preset", "default")
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}: one of {', '.join(PRESETS)}{did_you_mean(preset, PRESETS)}")
    merged = {**{name: value for name, value in PRESETS[preset].items() if name in fields}, **options}
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in merged]
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")
    if merged.get("batch_size") == "auto" and issubclass(cls, TrainConfig):
        merged["batch_size"] = 0
    return cls(**{name: _to_type(name, value, fields[name].type) for name, value in merged.items()})


def _to_type(name: str, value: Any, expected: Any) -> Any:
    """Bring a value as YAML writes it to the annotated type, or refuse it."""
    if get_origin(expected) in {UnionType, Union}:
        if value is None:
            return None
        expected = next(choice for choice in get_args(expected) if choice is not NoneType)
    if get_origin(expected) is tuple:
        items = get_args(expected)
        if not isinstance(value, (list, tuple)) or (items[-1] is not Ellipsis and len(value) != len(items)):
            count = "any number of" if items[-1] is Ellipsis else len(items)
            raise ConfigError(f"{name} needs {count} values, found {value!r:.200}")
        return tuple(_to_type(name, item, items[0]) for item in value)
    if get_origin(expected) is Literal:
        return value if isinstance(value, str) else str(value)  # __post_init__ knows the choices
    right = isinstance(value, bool) if expected is bool else not isinstance(value, bool)
    try:
        converted = expected(value)
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right or (expected is int and isinstance(value, float) and value != converted):
        raise ConfigError(f"{name} must be of type {expected.__name__}, found {value!r:.200}")
    return converted


def section(cls: type[C], config: object) -> C:
    """Return the part of a larger config that `cls` declares, for example the `ModelConfig` within a `TrainConfig`."""
    return cls(**{f.name: getattr(config, f.name) for f in dataclasses.fields(cls)})  # type: ignore[arg-type]


def to_dict(config: Any) -> dict[str, Any]:
    """Return the config as plain numbers, strings and lists, fit for YAML, JSON and a checkpoint."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def section_from_dict(cls: type[C], values: dict[str, Any]) -> C:
    """Return `cls` from a saved dictionary that may hold more than it declares (a whole `TrainConfig`)."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return resolve(cls, {name: value for name, value in values.items() if name in names})


ResultFormat = Literal["coco", "voc", "yolo", "csv"]


PictureFiles = Literal["copy", "link", "none"]


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(ClassesConfig):
    """What `retinanet convert SRC DST` can be told."""

    format: ResultFormat
    """What to write: coco, voc, yolo or csv."""
    from_format: DataFormat | None = None
    """What to read the source as; recognised unless given."""
    pictures: PictureFiles = "copy"
    """copy the pictures into the new data set, link to them, or none: leave them where they are."""
    workers: int = 2
    """Threads that decode pictures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of(self, format=get_args(ResultFormat), pictures=get_args(PictureFiles))
        _positive(self, "workers")
        if self.format == "yolo" and self.pictures == "none":
            raise ConfigError("YOLO finds labels by the place of the pictures: pictures must be copy or link")

    @property
    def reading(self) -> dict[str, Any]:
        """See `ClassesConfig`; with the format of the source."""
        return {**super().reading, "format": self.from_format}


@dataclass(frozen=True, kw_only=True)
class ConvertWeightsConfig:
    """What `retinanet convert-weights FILE` can be told."""

    output: Path
    """File to write: a checkpoint of ours."""
    classes: tuple[str, ...] = ()
    """Names of the file's classes in the order of its outputs (with commas between them), where it is not COCO's."""
    frozen_eps: float = 0.0
    """What torchvision's frozen BatchNorm adds to the variance: 0 in its published RetinaNet and in what is fine-tuned
    from it; 1e-5 where training started from ImageNet weights alone."""
    overwrite: bool = False
    """Replace a file that is already there."""

    def __post_init__(self) -> None:
        _between(self, 0.0, 1.0, "frozen_eps")

    @property
    def names(self) -> tuple[str, ...]:
        """The names in `classes`, each on its own."""
        return tuple(_separate(self.classes))


@dataclass(frozen=True, kw_only=True)
class SplitConfig(DataConfig):
    """What `retinanet split DATA` can be told."""

    output: Path
    """Folder for the parts: train.json and val.json, unless `to` says otherwise."""
    val: float = 0.2
    """Share of the pictures for validation."""
    test: float = 0.0
    """Share of the pictures for a test at the end."""
    group_by: str | None = None
    """Pictures that agree in this stay together: a column of the CSV or a field of COCO's images, `folder`, or a
    regular expression searched in file names: '^[^_]+' is what comes before the first _."""
    near_duplicates: bool = True
    """Keep pictures that look the same on one side."""
    to: ResultFormat = "coco"
    """Format of the parts: coco, voc, yolo or csv."""
    pictures: PictureFiles = "none"
    """none: leave the pictures where they are (coco and csv name their place); copy; or link to them."""
    workers: int = 2
    """Threads that decode pictures."""
    seed: int = 0
    """The same seed divides alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of(self, to=get_args(ResultFormat), pictures=get_args(PictureFiles))
        _positive(self, "workers", "val")
        if not 0 <= self.test < 1 or self.val + self.test >= 1:
            raise ConfigError(
                f"val and test are shares that leave something to train on, found {self.val}, {self.test}"
            )
        if self.to in {"voc", "yolo"} and self.pictures == "none":
            raise ConfigError(f"{self.to} finds pictures by their place: pictures must be copy or link")


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
        _positive(self, "batch_size")
        _one_of(self, precision=get_args(Precision))
        _between(self, 0.0, 1.0, "confusion_threshold")
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, found {self.workers}")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(TileConfig):
    """What `retinanet predict MODEL INPUT...` can be told."""

    output: Path
    """Folder for the detections and the drawn pictures."""
    format: ResultFormat = "coco"
    """coco (detections.json), csv (detections.csv), voc (Annotations/) or yolo (labels/)."""
    threshold: float | None = None
    """Write detections from this score on; the model's own `score_threshold` unless given."""
    draw: bool = True
    """Draw the detections on copies of the pictures, in drawn/."""
    draw_threshold: float = 0.5
    """Draw detections from this score on."""
    tta: bool = False
    """Test-time augmentation: look at each picture flipped and at 0.8 and 1.25 times its size too."""
    track: bool = False
    """In a video: follow the objects from frame to frame and number them (ByteTrack)."""
    fps: float = 0.0
    """Take the pictures as the numbered frames of one video, so many a second; 0: each is a picture of its own."""
    ids_from: Path | None = None
    """Data set whose picture ids the COCO results take; pictures are numbered from 1 unless given."""
    overwrite: bool = False
    """Replace what an earlier run wrote into the folder."""
    batch_size: int = 8
    """Pictures that go through the network at once."""
    workers: int = 2
    """Threads that load pictures ahead of the network; 0 loads them in between."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    precision: Precision = "32"
    """Number format of the network: 32, or bf16 (bfloat16), which takes half the time where the processor has it."""
    engine: Literal["local", "ray"] = "local"
    """local, or ray: on all machines of a Ray cluster, into Parquet files, nothing drawn (see docs/scale.md)."""
    shard_size: int = 1000
    """With `engine` ray: pictures in a Parquet file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "batch_size", "shard_size")
        _one_of(self, format=("coco", "voc", "yolo", "csv"), precision=get_args(Precision), engine=("local", "ray"))
        _between(self, 0.0, 1000.0, "fps")
        _between(self, 0.0, 1.0, "draw_threshold", *(() if self.threshold is None else ("threshold",)))
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, found {self.workers}")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What `retinanet serve MODEL` can be told."""

    host: str = "127.0.0.1"
    """Address to listen on. The default takes requests from this machine only; 0.0.0.0 from everywhere."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    workers: int = 1
    """Processes, each with its own copy of the model, its own queue, and its share of the cores."""
    max_batch: int = 8
    """Pictures that go through the network at once, at the most."""
    max_wait_ms: float = 5.0
    """How long a picture waits for others that are being read, to go through the network together."""
    max_queue: int = 64
    """Pictures that are in a process at once, from their first byte to the answer. One more is answered 503."""
    max_upload_mb: float = 20.0
    """Largest request, megabytes."""
    max_pixels: int = 50_000_000
    """Largest picture, pixels: decoded it takes 3 bytes for each."""
    api_key_file: Path | None = None
    """File of keys, one a line; with it, every request needs one of them (Authorization: Bearer KEY)."""
    device: str = "auto"
    """auto, cpu, cuda, or what the runtime of the model knows."""

    def __post_init__(self) -> None:
        _positive(self, "workers", "max_batch", "max_queue", "max_upload_mb")
        _between(self, 0, 65535, "port")
        _between(self, 0.0, 1000.0, "max_wait_ms")
        _between(self, 1, 178_000_000, "max_pixels")  # Pillow's own limit

    @property
    def upload_bytes(self) -> int:
        """Largest request, bytes."""
        return int(self.max_upload_mb * 1_000_000)


@dataclass(frozen=True, kw_only=True)
class CheckConfig(ModelConfig, MatchConfig, LossConfig, ImageConfig, DataConfig):
    """What `retinanet check DATA` and `retinanet check MODEL DATA` can be told.

    With a model, its own network, anchors, loss and picture size are what is checked, and those options have no effect.
    """

    preset: PresetName = "default"
    """default, paper or small: the settings that training would use."""
    val: Path | None = None
    """Validation data: also look for pictures that are in both, and classes that are in one only."""
    val_images: Path | None = None
    """Folder of the validation pictures; `images` unless given."""
    report: Path | None = None
    """File for a report with figures (HTML)."""
    json: Path | None = None
    """File for faults, findings and statistics as JSON; - prints them instead of the text."""
    hard: bool = False
    """With a model: list and draw what it gets most wrong, background and objects; probably wrong labels."""
    hard_examples: int = 50
    """How many of either kind."""
    easy_from: float = 0.5
    """With a model: an example counts as easy where its own answer has at least this probability."""
    output: Path = Path("runs/check")
    """Folder for what --hard writes: hard.csv and report.html."""
    skip_bad: bool = False
    """Exit with status 0 although there are faults; they are listed all the same."""
    batch_size: int = 8
    """Pictures that go through the model at once."""
    workers: int = 2
    """Threads that decode pictures."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    seed: int = 0
    """For what is picked at random."""

    def __post_init__(self) -> None:
        for base in (ModelConfig, MatchConfig, LossConfig, ImageConfig, DataConfig):
            base.__post_init__(self)
        _one_of(self, preset=tuple(PRESETS))
        _positive(self, "batch_size", "workers", "hard_examples")
        _between(self, 0.000001, 0.999999, "easy_from")


@dataclass(frozen=True, kw_only=True)
class StudyConfig(TrainConfig):
    """What `retinanet study DATA` can be told: which set-ups to train, and all that `train` can be told about each."""

    train: Path = Path()
    """Given as DATA: the data to train on; without `val`, a fifth of its pictures is kept for validation."""
    val: Path | None = None  # type: ignore[assignment]
    """Validation data, on which all are measured."""
    losses: tuple[LossName, ...] = ("focal", "ce", "balanced_ce", "weighted", "hard_negative_mining", "ohem")
    """The losses to compare, each with the settings given for it."""
    without_prior: tuple[LossName, ...] = ()
    """Losses to train with the prior switched off (0.5) as well."""
    alphas: tuple[float, ...] = ()
    """Values of alpha to train focal loss with, besides `alpha`; with `gammas`, every pair of the two."""
    gammas: tuple[float, ...] = ()
    """Values of gamma, likewise."""
    seeds: int = 3
    """How often each is trained, with another seed each time; intervals need 2 or more."""
    keep_checkpoints: bool = False
    """Keep the weights of every run, not only of the first seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "seeds")
        if not self.losses:
            raise ConfigError("losses must name one loss or more, found none")
        for name in ("losses", "without_prior"):
            for value in getattr(self, name):
                if value not in get_args(LossName):
                    near = did_you_mean(value, get_args(LossName))
                    raise ConfigError(f"{name} must hold {', '.join(get_args(LossName))}, found {value!r}{near}")
        if any(not 0 <= alpha <= 1 for alpha in self.alphas) or any(gamma < 0 for gamma in self.gammas):
            raise ConfigError(f"alphas are between 0 and 1, gammas 0 or more; found {self.alphas} and {self.gammas}")


ExportFormat = Literal["onnx", "openvino", "torch"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ClassesConfig):
    """What `retinanet export MODEL` can be told."""

    output: Path | None = None
    """File to write: .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 (torch.export)."""
    format: ExportFormat | None = None
    """onnx, openvino or torch; by the file's name unless given."""
    uint8: bool = False
    """Take pictures as bytes, 0 to 255, rather than as float in [0, 1]: a quarter of the input."""
    raw: bool = False
    """Leave out the decoding: logits and offsets of every anchor, level by level."""
    bf16: bool = False
    """OpenVINO: compute in bfloat16 where the processor can; faster, with scores that differ in the third digit."""
    int8: bool = False
    """Quantise the network to int8; needs `calibrate`."""
    calibrate: Path | None = None
    """Data on whose pictures the ranges for int8 are measured: training data."""
    calibration_pictures: int = 100
    """How many of them."""
    max_ap_drop: float = 0.01
    """Refuse an export whose AP on `data` is lower than the checkpoint's by more than this."""
    pictures: tuple[str, ...] = ()
    """Pictures on which export and checkpoint are compared: files, folders, globs."""
    data: Path | None = None
    """Data on which they are compared, and the AP of both is measured; the training run's validation data unless
    given. Its format is recognised."""
    triton: Path | None = None
    """Folder of a model repository for Triton Inference Server, in which the model gets its place."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format is not None:
            _one_of(self, format=get_args(ExportFormat))
        _positive(self, "calibration_pictures")
        if self.int8 and self.calibrate is None:
            raise ConfigError("int8 measures the ranges of the activations on real pictures: give --calibrate DATA")
        if self.int8 and (self.raw or self.bf16):
            raise ConfigError("int8 goes with neither raw nor bf16")
        if not self.max_ap_drop >= 0:
            raise ConfigError(f"max_ap_drop must be 0 or more, found {self.max_ap_drop}")
