"""Options of `retinanet predict`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Interval

from retinanet.config.annotations import Word
from retinanet.config.hardware import DeviceConfig
from retinanet.config.inference import InferenceConfig, NmsConfig
from retinanet.config.loading import BatchConfig, LoadingConfig
from retinanet.config.output import ExistingConfig, FolderConfig
from retinanet.config.tile import TileConfig
from retinanet.config.validation import check_options
from retinanet.config.value_range import ValueRangeConfig


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Options of `retinanet predict MODEL INPUT...`."""

    folder: FolderConfig
    existing: ExistingConfig = field(default_factory=ExistingConfig)
    format: str = "coco"
    """Format of the detections: coco (detections.json), csv (detections.csv), voc (Annotations/) or yolo (labels/)."""
    threshold: Annotated[float | Literal["tuned"] | None, Interval(ge=0.0, le=1.0), Word("tuned", "tuned")] = None
    """Lowest score of the detections that are written. `tuned`: the thresholds that `retinanet tune` chose for the
    classes, and all written detections are drawn. Default: `score_threshold` of the model."""
    classes: tuple[str, ...] = ()
    """Class names to keep, separated by spaces or commas. Detections of all other classes are left out of all
    results."""
    draw: bool = True
    """Draw the detections on copies of the images, in the folder drawn/."""
    draw_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Lowest score of the detections that are drawn."""
    font: Path | None = None
    """Font file for the class names in drawn images and videos (.ttf, .otf or .ttc). Characters that the font lacks,
    and all characters without this option, are drawn with DejaVu Sans or with a font of the system."""
    track: bool = False
    """In videos: follow objects from frame to frame and give each object a number (ByteTrack)."""
    fps: Annotated[float, Interval(ge=0.0, le=1000.0)] = 0.0
    """Frames per second: the inputs are numbered frames of one video. 0: each input is an image of its own."""
    ids_from: Path | None = None
    """Dataset whose image ids are used in the COCO results. By default, images are numbered from 1."""
    engine: Literal["local", "ray"] = "local"
    """local: predict on this machine. ray: predict on all nodes of a Ray cluster, write Parquet files and draw nothing
    (see docs/how-to/ray.md)."""
    shard_size: Annotated[int, Gt(0)] = 1000
    """With `--engine ray`: number of images per Parquet file."""
    tiling: TileConfig = field(default_factory=TileConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    nms: NmsConfig = field(default_factory=NmsConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    value_range: ValueRangeConfig = field(default_factory=ValueRangeConfig)

    def __post_init__(self) -> None:
        check_options(self)
        self.batch.require_number()

    @property
    def drawn_threshold(self) -> float:
        """Lowest score of the detections that are drawn."""
        return 0.0 if self.threshold == "tuned" else self.draw_threshold
