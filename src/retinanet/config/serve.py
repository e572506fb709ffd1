"""Options of `retinanet serve`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Gt, Interval

from retinanet.config.hardware import DeviceConfig
from retinanet.config.inference import NmsConfig
from retinanet.config.validation import check_options
from retinanet.config.value_range import ValueRangeConfig


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Options of `retinanet serve MODEL`."""

    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    value_range: ValueRangeConfig = field(default_factory=ValueRangeConfig)
    nms: NmsConfig = field(default_factory=NmsConfig)
    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1 accepts requests from this machine only; 0.0.0.0 accepts requests from every
    machine."""
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000
    """Port to listen on; 0: any free port."""
    workers: Annotated[int, Gt(0)] = 1
    """Number of processes. Each process has its own copy of the model, its own queue and an equal share of the CPU
    cores."""
    max_batch: Annotated[int, Gt(0)] = 8
    """Greatest number of images that pass through the network together."""
    max_wait_ms: Annotated[float, Interval(ge=0.0, le=1000.0)] = 5.0
    """Longest time that an image waits for other images to form a batch, milliseconds."""
    max_queue: Annotated[int, Gt(0)] = 64
    """Greatest number of images in one process, from the first byte of the request to the answer. Further requests are
    answered with status 503."""
    max_upload_mb: Annotated[float, Gt(0)] = 20.0
    """Largest accepted request, megabytes."""
    max_pixels: Annotated[int, Interval(ge=1, le=178_000_000)] = 50_000_000  # Pillow's own limit
    """Largest accepted image, pixels (width times height). A decoded image takes 3 bytes of memory per pixel."""
    api_key_file: Path | None = None
    """File of API keys, one per line. With it, every request needs the header `Authorization: Bearer KEY`."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def upload_bytes(self) -> int:
        """Largest request, bytes."""
        return int(self.max_upload_mb * 1_000_000)
