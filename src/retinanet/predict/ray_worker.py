"""A worker of a Ray job: reads the images of a shard, predicts, and writes the shard's Parquet file.

Boxes are xyxy in original pixels.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.config import PredictConfig
from retinanet.errors import UserError
from retinanet.files import path_from_text
from retinanet.predict.batches import ImageResult, Source, batched
from retinanet.predict.coco_results import class_ids, class_names, scores
from retinanet.predict.loading import load
from retinanet.predict.ray_inputs import PATH_COLUMNS, Shard, file_system, join_path

if TYPE_CHECKING:
    import pyarrow as pa

SHARDS: Final = "shards"
"""Folder of the results (part-000000.parquet, ...) in the output folder."""
FETCHERS: Final = 8
"""Number of threads of a worker that download images from an object store."""


class Worker:
    """A process of the cluster that holds a model and writes the Parquet files of shards.

    Args:
        model: path of the model.
        config: options of the job, including the output folder.
        gpu: True to run the model on the GPU of this process.
    """

    def __init__(self, model: str, config: PredictConfig, gpu: bool) -> None:
        self.config = config
        self.detector = load(
            model,
            "cuda" if gpu else "cpu",
            config.inference.precision,
            threads=1,
            bit_depth=config.value_range.bit_depth,
            agnostic_nms=config.nms.agnostic_nms,
            nms_threshold=config.nms.nms_threshold,
            compile=config.inference.compile,
        )
        if not gpu and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        self.folder = config.folder.output.resolve() / SHARDS

    def __call__(self, tasks: pa.Table) -> pa.Table:
        """Process the shards of a batch, and return their numbers. Shards with an existing file are skipped."""
        import pyarrow as pa

        for shard in tasks.to_pylist():
            if not shard_file(self.folder, shard["number"]).exists():
                self.write_shard(shard)
        return pa.table({"number": tasks["number"]})

    def write_shard(self, shard: Shard) -> None:
        """Write the Parquet file of a shard. The file gets its final name only once it is complete."""
        import pyarrow.parquet as pq

        target = shard_file(self.folder, shard["number"])
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
        try:
            pq.write_table(self._table(shard), partial, compression="zstd")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _table(self, shard: Shard) -> pa.Table:
        """Return the results of a shard, one row per image."""
        import pyarrow as pa

        names, sources = _read_shard(shard)
        fetch_errors: dict[int, str] = {}
        rows = []
        config = self.config
        stream = self.detector.stream(
            _fetch_batches(sources, config.batch.batch_size, fetch_errors),
            workers=config.loading.workers,
            threshold=config.threshold,
            tiling=config.tiling,
            tta=config.inference.tta,
            classes=config.classes,
        )
        for i, (name, result) in enumerate(zip(names, stream, strict=True)):
            rows.append({"index": shard["first"] + i, "source": name, **self._row(result, fetch_errors.get(i))})
        return pa.Table.from_pylist(rows, schema=_schema())

    def _row(self, result: ImageResult, fetch_error: str | None) -> dict[str, Any]:
        """Return the columns of one image, without `index` and `source`."""
        if result.detections is None or fetch_error is not None:
            error = fetch_error or str(result.error)
            return {"error": error, "boxes": [], "scores": [], "class_ids": [], "classes": []}
        detections = self.detector.named(result.detections)
        return {
            "width": result.width,
            "height": result.height,
            "boxes": detections.xyxy.tolist(),
            "scores": scores(detections).tolist(),
            "class_ids": class_ids(detections).tolist(),
            "classes": class_names(detections),
            "error": None,
        }


def _schema() -> pa.Schema:
    """Return the names and types of the result's columns."""
    import pyarrow as pa

    return pa.schema(
        [
            ("index", pa.int64()),
            ("source", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            ("scores", pa.list_(pa.float32())),
            ("class_ids", pa.list_(pa.int32())),
            ("classes", pa.list_(pa.dictionary(pa.int32(), pa.string()))),
            ("error", pa.string()),
        ]
    )


def _read_shard(shard: Shard) -> tuple[list[str], list[str | bytes]]:
    """Return the name of each image of a shard, and its path or encoded bytes."""
    import pyarrow.parquet as pq

    system, inner = file_system(shard["file"])
    with system.open(inner, "rb") as file:
        table = pq.ParquetFile(file).read_row_group(shard["group"], columns=[shard["column"]])
    rows = table.slice(shard["offset"], shard["rows"])[shard["column"]].to_pylist()
    if shard["column"] in PATH_COLUMNS:
        paths = [join_path(shard["base"], row) if row else "" for row in rows]
        return paths, list(paths)
    content = [row["bytes"] if isinstance(row, dict) else row for row in rows]
    first = shard["first"]
    return [f"{shard['file']}#{first + i}" for i in range(len(content))], [row or b"" for row in content]


def _fetch_batches(sources: list[str | bytes], size: int, fetch_errors: dict[int, str]) -> Iterator[list[Source]]:
    """Yield batches of image sources, with images of object stores downloaded.

    Args:
        sources: path, address or encoded bytes of each image.
        size: number of images per batch.
        fetch_errors: filled with the error of each image that cannot be downloaded, by index in `sources`.
    """

    def fetch(numbered: tuple[int, str | bytes]) -> Source:
        i, source = numbered
        if isinstance(source, bytes):
            return source
        if "://" not in source:
            return path_from_text(source)
        try:
            system, inner = file_system(source)
            return bytes(system.cat_file(inner))
        except (OSError, UserError) as error:
            fetch_errors[i] = f"{source}: {error or type(error).__name__}"
            return b""

    with ThreadPoolExecutor(FETCHERS) as pool:
        for batch in batched(enumerate(sources), size):
            yield list(pool.map(fetch, batch))


def shard_file(folder: Path, number: int) -> Path:
    """Return the Parquet file of a shard."""
    return folder / f"part-{number:06d}.parquet"
