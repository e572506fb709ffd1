"""Options of `retinanet predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from retinanet.config.tile import TileConfig
from retinanet.config.validation import check_between, check_choice, check_positive
from retinanet.errors import ConfigError

Precision = Literal["32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class PredictConfig(TileConfig):
    """What `retinanet predict MODEL INPUT...` can be told."""

    output: Path
    """Folder for the detections and the drawn pictures."""
    format: str = "coco"
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
        check_positive(self, "batch_size", "shard_size")
        check_choice(self, precision=get_args(Precision), engine=("local", "ray"))
        check_between(self, 0.0, 1000.0, "fps")
        check_between(self, 0.0, 1.0, "draw_threshold", *(() if self.threshold is None else ("threshold",)))
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, found {self.workers}")
