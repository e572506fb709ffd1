"""Options of `retinanet predict`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Interval

from retinanet.config.hardware import DeviceConfig
from retinanet.config.inference import InferenceConfig
from retinanet.config.loading import BatchConfig, LoadingConfig
from retinanet.config.output import ExistingConfig, FolderConfig
from retinanet.config.tile import TileConfig
from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What `retinanet predict MODEL INPUT...` can be told."""

    folder: FolderConfig
    existing: ExistingConfig = field(default_factory=ExistingConfig)
    format: str = "coco"
    """coco (detections.json), csv (detections.csv), voc (Annotations/) or yolo (labels/)."""
    threshold: Annotated[float | None, Interval(ge=0.0, le=1.0)] = None
    """Write detections from this score on; the model's own `score_threshold` unless given."""
    draw: bool = True
    """Draw the detections on copies of the images, in drawn/."""
    draw_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    """Draw detections from this score on."""
    track: bool = False
    """In a video: follow the objects from frame to frame and number them (ByteTrack)."""
    fps: Annotated[float, Interval(ge=0.0, le=1000.0)] = 0.0
    """Take the images as the numbered frames of one video, so many a second; 0: each is an image of its own."""
    ids_from: Path | None = None
    """Dataset whose image ids the COCO results take; images are numbered from 1 unless given."""
    engine: Literal["local", "ray"] = "local"
    """local, or ray: on all machines of a Ray cluster, into Parquet files, nothing drawn (see
    docs/how-to/predict-on-ray.md)."""
    shard_size: Annotated[int, Gt(0)] = 1000
    """With `engine` ray: images in a Parquet file."""
    tiling: TileConfig = field(default_factory=TileConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loading: LoadingConfig = field(default_factory=LoadingConfig)
    hardware: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        check_options(self)
        self.batch.require_number()
