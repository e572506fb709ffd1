"""A fake of Ray, and functions that run a job and read its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retinanet.config import PredictConfig, resolve
from retinanet.predict.ray_worker import Worker
from tests.export.made import model_and_images

pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'retinanet[scale]'")
pq = pytest.importorskip("pyarrow.parquet")
ray_engine = pytest.importorskip("retinanet.predict.ray_engine")


def write_model_and_images(root: Path) -> Path:
    """Write model.ckpt, and images/ with one invalid image."""
    model_and_images(root)
    (root / "images" / "broken.png").write_bytes(b"\x89PNG\r\n")
    return root


class FakeRay:
    """A fake of Ray that processes all shards with one worker in this process."""

    worker: Any = None

    def run(self, _: Any, shards: list[Any], model: Path, config: PredictConfig, *_more: Any) -> None:
        self.worker = Worker(str(model), config, False)
        for shard in shards:
            self.worker(pa.Table.from_pylist([shard]))


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Return the rows of all Parquet files of a job."""
    files = sorted((output / "shards").iterdir())
    assert all(file.suffix == ".parquet" for file in files), "no incomplete file is left"
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def run_job(folder: Path, output: Path, *inputs: str, **options: Any) -> Any:
    """Run a job with batch size 1, because the padding of an image, and so rounding, depends on its batch."""
    config = resolve(PredictConfig, {"output": output, "engine": "ray", "shard_size": 2, "batch_size": 1, **options})
    return ray_engine.predict_on_ray(folder / "model.ckpt", inputs or (str(folder / "images"),), config)
