"""Options of `retinanet serve`."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.config.validation import check_between, check_positive


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
        check_positive(self, "workers", "max_batch", "max_queue", "max_upload_mb")
        check_between(self, 0, 65535, "port")
        check_between(self, 0.0, 1000.0, "max_wait_ms")
        check_between(self, 1, 178_000_000, "max_pixels")  # Pillow's own limit

    @property
    def upload_bytes(self) -> int:
        """Largest request, bytes."""
        return int(self.max_upload_mb * 1_000_000)
