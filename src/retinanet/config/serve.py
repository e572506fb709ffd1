"""Options of `retinanet serve`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Gt, Interval

from retinanet.config.hardware import DeviceConfig
from retinanet.config.validation import check_options


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What `retinanet serve MODEL` can be told."""

    hardware: DeviceConfig = field(default_factory=DeviceConfig)
    host: str = "127.0.0.1"
    """Address to listen on. The default takes requests from this machine only; 0.0.0.0 from everywhere."""
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one."""
    workers: Annotated[int, Gt(0)] = 1
    """Processes, each with its own copy of the model, its own queue, and its share of the cores."""
    max_batch: Annotated[int, Gt(0)] = 8
    """Images that go through the network at once, at the most."""
    max_wait_ms: Annotated[float, Interval(ge=0.0, le=1000.0)] = 5.0
    """How long an image waits for others that are being read, to go through the network together."""
    max_queue: Annotated[int, Gt(0)] = 64
    """Images that are in a process at once, from their first byte to the answer. One more is answered 503."""
    max_upload_mb: Annotated[float, Gt(0)] = 20.0
    """Largest request, megabytes."""
    max_pixels: Annotated[int, Interval(ge=1, le=178_000_000)] = 50_000_000  # Pillow's own limit
    """Largest image, pixels: decoded it takes 3 bytes for each."""
    api_key_file: Path | None = None
    """File of keys, one a line; with it, every request needs one of them (Authorization: Bearer KEY)."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def upload_bytes(self) -> int:
        """Largest request, bytes."""
        return int(self.max_upload_mb * 1_000_000)
