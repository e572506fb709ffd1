"""A stand-in for Ray, a job, and the rows that a job wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retinanet.config import PredictConfig, resolve
from retinanet.predict.ray_worker import Worker
from tests.export.made import model_and_images

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'retinanet[scale]'")
pq = pytest.importorskip("pyarrow.parquet")
scale = pytest.importorskip("retinanet.predict.ray_engine")


def make_folder(root: Path) -> Path:
    """Make model.ckpt, and images/ with one that is broken."""
    model_and_images(root)
    (root / "images" / "broken.png").write_bytes(b"\x89PNG\r\n")
    return root


class FakeRay:
    """Hands all shards to one worker in this process."""

    worker: Any = None

    def run(self, _: Any, shards: list[Any], model: Path, config: PredictConfig, *_more: Any) -> None:
        self.worker = Worker(str(model), config, False)
        for shard in shards:
            self.worker(pa.Table.from_pylist([shard]))


def rows(output: Path) -> list[dict[str, Any]]:
    files = sorted((output / "shards").iterdir())
    assert all(file.suffix == ".parquet" for file in files), "nothing half-written is left"
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def job(folder: Path, output: Path, *inputs: str, **options: Any) -> Any:
    """Batches of one: what an image is padded to, and so its last digits, depends on its batch."""
    config = resolve(PredictConfig, {"output": output, "engine": "ray", "shard_size": 2, "batch_size": 1, **options})
    return scale.predict_on_ray(folder / "model.ckpt", inputs or (str(folder / "images"),), config)
