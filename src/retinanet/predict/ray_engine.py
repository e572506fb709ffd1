"""Prediction over millions of pictures on a Ray cluster: `retinanet predict MODEL SOURCE... --engine ray -o OUT`.

The pictures are numbered and divided into shards. A worker reads the pictures of a shard, predicts, and writes the
shard's Parquet file under its name when it is whole: a shard whose file is there is done, whoever dies, and no picture
stands in two files. Ray Data hands out the shards, starts workers anew that died, and holds back what nobody has time
for.

Ray and pyarrow come with the extra `scale`. Boxes are xyxy in original pixels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from retinanet.config import PredictConfig, flatten
from retinanet.errors import ConfigError, UserError, explain_missing, list_names
from retinanet.files import atomic_path, write_atomically
from retinanet.predict.coco_results import class_names
from retinanet.predict.detector import ImageResult, Source, batched
from retinanet.predict.inputs import IMAGE_SUFFIXES
from retinanet.predict.loading import load
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    import pyarrow as pa


SHARDS: Final = "shards"
"""Below the output folder: part-000000.parquet and so on."""


MANIFEST: Final = "manifest.json"


INPUTS: Final = "inputs.parquet"


LIST_SUFFIXES: Final = {".txt", ".lst"}


BYTES: Final = ("bytes", "image", "content")
"""Columns of a Parquet file that hold encoded pictures: binary, or {"bytes": ...} as Hugging Face has them."""


PATHS: Final = ("path", "file_name", "uri", "url")


FETCHERS: Final = 8
"""Threads of a worker that fetch pictures from an object store."""


class Shard(TypedDict):
    """Rows of one row group of a Parquet file of inputs."""

    number: int
    first: int  # the number of its first picture
    file: str
    group: int
    offset: int
    rows: int
    column: str
    base: str  # what relative paths are relative to


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleSummary:
    """What became of a job.

    Args:
        pictures: looked at, in this run and those before it.
        detections: found in them.
        failed: pictures that could not be read; their rows hold the error.
        shards: files in the output folder.
        done_before: of them, how many an earlier run had finished.
        results: the folder of the files.
    """

    pictures: int
    detections: int
    failed: int
    shards: int
    done_before: int
    results: Path


def predict_on_ray(
    model: Path,
    inputs: Sequence[str],
    config: PredictConfig,
    *,
    workers: int | None = None,
    progress: ProgressBar = no_progress_bar,
) -> ScaleSummary:
    """Detect in all pictures, on the Ray cluster that RAY_ADDRESS names, or on this machine's cores.

    What an earlier run with the same model, inputs and options left in the output folder is not done again.

    Args:
        model: a checkpoint or an exported model, under the same path on all machines.
        inputs: pictures, folders, text lists of pictures (.txt), Parquet files (of paths or of encoded pictures), and
            folders of those; each also as the address of an object store, which fsspec reads (s3://, gs://, ...).
        config: `output` must be a folder that all machines share.
        workers: processes, each with one core and a copy of the model (and one GPU where the cluster has any); all
            the cluster's cores or GPUs unless given.
        progress: opens a progress bar.

    Raises:
        UserError: no such input or model, options that do not fit, or a folder with other results.
    """
    try:
        import pyarrow  # noqa: F401
        import ray
    except ModuleNotFoundError as error:
        raise explain_missing(error, "--engine ray") from error
    _refuse(config)
    if not model.exists():
        raise UserError(f"{model}: no such file")
    folder = config.folder.output / SHARDS
    shards, digest = _shards(inputs, config)
    _claim(config, {"model": _digest(model), "inputs": digest, "shards": len(shards), **_options(config)})
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in shards if not _file(folder, shard["number"]).exists()]
    if missing:
        _run(ray, missing, model.resolve(), config, workers, progress)
    lost = [str(shard["number"]) for shard in shards if not _file(folder, shard["number"]).exists()]
    if lost:  # Ray has given up on a worker, and said why
        raise UserError(f"{len(lost):,} shards are missing ({list_names(lost)}): run the same command again")
    for abandoned in folder.glob("*.partial"):  # of workers that were killed
        abandoned.unlink(missing_ok=True)
    return _summary(folder, shards, done_before=len(shards) - len(missing))


def _refuse(config: PredictConfig) -> None:
    """Refuse what the local engine alone can do."""
    if config.track or config.fps:
        raise ConfigError("--engine ray takes pictures, no videos: leave out --track and --fps")
    if config.ids_from is not None or config.format != PredictConfig.format:
        raise ConfigError("--engine ray writes Parquet: leave out --format and --ids-from")


def _options(config: PredictConfig) -> dict[str, Any]:
    """Return what the results depend on."""
    names = ("threshold", "tta", "tile", "overlap", "precision", "shard_size")
    values = flatten(config)
    return {name: values[name] for name in names}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and weights.exists():
        with weights.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _claim(config: PredictConfig, job: dict[str, Any]) -> None:
    """Write down what is done in the output folder; refuse one in which something else was."""
    path, folder = config.folder.output / MANIFEST, config.folder.output / SHARDS
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        differ = sorted(name for name in {*job, *there} if job.get(name) != there.get(name))
        if not differ:
            return
        if not config.existing.overwrite:
            raise ConfigError(
                f"{config.folder.output} holds results of another job ({', '.join(differ)} differ): give --overwrite "
                "to replace them, or another folder"
            )
        for file in folder.glob("part-*"):
            file.unlink()
    write_atomically(path, json.dumps(job, indent=1) + "\n")


def _shards(inputs: Sequence[str], config: PredictConfig) -> tuple[list[Shard], str]:
    """Return all shards, and a digest of the inputs: of all paths, and of the names and sizes of Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths, tables = _listed(inputs)
    digest = hashlib.sha256()
    files = [(table, table.rpartition("/")[0]) for table in tables]  # and what relative paths in them are relative to
    if paths:
        target = config.folder.output / INPUTS
        with atomic_path(target) as partial, pq.ParquetWriter(partial, pa.schema([("path", pa.string())])) as writer:
            for part in batched(paths, config.shard_size):
                writer.write_table(pa.table({"path": part}), row_group_size=config.shard_size)
                digest.update("".join(f"{path}\n" for path in part).encode())
        files.insert(0, (str(target.resolve()), ""))
    for table in tables:
        system, inner = _system(table)
        digest.update(f"{table} {system.size(inner)}".encode())
    shards: list[Shard] = []
    first = 0
    for name, base in files:
        system, inner = _system(name)
        with system.open(inner, "rb") as file:
            metadata = pq.read_metadata(file)
        column = _column(name, metadata.schema.to_arrow_schema())
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            for offset in range(0, rows, config.shard_size):
                size = min(config.shard_size, rows - offset)
                shard = Shard(
                    number=len(shards),
                    first=first,
                    file=name,
                    group=group,
                    offset=offset,
                    rows=size,
                    column=column,
                    base=base,
                )
                shards.append(shard)
                first += size
    return shards, digest.hexdigest()


def _listed(inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the pictures' paths or addresses, and those of Parquet files: sorted, each once."""
    paths: set[str] = set()
    tables: set[str] = set()
    for entry in inputs:
        for name in _below(entry):
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - of an address too
            if suffix == ".parquet":
                tables.add(name)
            elif suffix in LIST_SUFFIXES and name == _absolute(entry):
                system, inner = _system(name)
                lines = system.cat_file(inner).decode("utf-8").splitlines()
                base = name.rpartition("/")[0]
                paths.update(_join(base, line.strip()) for line in lines if line.strip())
            elif suffix in IMAGE_SUFFIXES:
                paths.add(name)
            elif name == _absolute(entry):
                raise UserError(f"{entry}: expected a picture, a folder, a list (.txt) or a .parquet file")
    if not paths and not tables:
        raise UserError(f"{', '.join(inputs)}: no pictures and no .parquet files there")
    return sorted(paths), sorted(tables)


def _below(entry: str) -> list[str]:
    """Return the files at or below a path or an address."""
    system, inner = _system(entry)
    try:
        if system.isfile(inner):
            return [_absolute(entry)]
        found = system.find(inner) if not any(c in inner for c in "*?[") else system.glob(inner)
    except OSError as error:
        raise UserError(f"{entry}: {error}") from error
    if not found:
        raise UserError(f"{entry}: no such file or folder, or nothing in it")
    return [str(system.unstrip_protocol(name)) if "://" in entry else str(name) for name in found]


def _system(name: str) -> tuple[Any, str]:
    """Return fsspec's file system of a path or an address, and the name within it."""
    import fsspec

    try:
        system, inner = fsspec.core.url_to_fs(name)
    except (ImportError, ValueError) as error:  # an address whose reader is not installed, or unknown
        raise UserError(f"{name}: {error}") from error
    return system, str(inner)


def _absolute(name: str) -> str:
    return name if "://" in name else os.path.abspath(name)  # noqa: PTH100 - resolve() would follow links


def _join(base: str, name: str) -> str:
    """Return a path of a list or a table, relative to where that stands."""
    return name if "://" in name or os.path.isabs(name) or not base else f"{base}/{name}"  # noqa: PTH117


def _column(table: str, schema: pa.Schema) -> str:
    import pyarrow as pa

    for name in BYTES:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                return name
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
    for name in PATHS:
        if name in schema.names and (
            pa.types.is_string(schema.field(name).type) or pa.types.is_large_string(schema.field(name).type)
        ):
            return name
    raise UserError(
        f"{table}: expected a column of encoded pictures ({', '.join(BYTES)}) or of paths ({', '.join(PATHS)}), "
        f"found {', '.join(schema.names)}"
    )


def _run(
    ray: Any, shards: list[Shard], model: Path, config: PredictConfig, workers: int | None, progress: ProgressBar
) -> None:
    """Do the shards, as many at a time as there are workers."""
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = not ray.is_initialized()
    if started:
        address = {"address": "auto"} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **address)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        cluster = ray.cluster_resources()
        gpus = int(cluster.get("GPU", 0)) if config.hardware.device in {"auto", "cuda"} else 0
        count = workers or max(1, min(gpus or int(cluster.get("CPU", 1)), len(shards)))
        tasks = ray.data.from_items([dict(shard) for shard in shards], override_num_blocks=min(len(shards), 20_000))
        done = tasks.map_batches(
            Worker,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(str(model), config, bool(gpus)),
            compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            num_gpus=1 if gpus else None,
        )
        with progress("shards", len(shards)) as advance:
            for _ in done.iter_rows():
                advance()
    finally:
        if started:
            ray.shutdown()


class Worker:
    """A process of the cluster: the model, and what turns a shard into its file.

    Args:
        model: its path.
        config: thresholds, tiles, and where the files go.
        gpu: whether this process has one.
    """

    def __init__(self, model: str, config: PredictConfig, gpu: bool) -> None:
        self.config = config
        self.detector = load(model, "cuda" if gpu else "cpu", config.inference.precision, threads=1)
        if not gpu and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        self.folder = config.folder.output.resolve() / SHARDS

    def __call__(self, tasks: pa.Table) -> pa.Table:
        """Do the shards of a batch, and return their numbers."""
        import pyarrow as pa

        for shard in tasks.to_pylist():
            if not _file(self.folder, shard["number"]).exists():
                self.do(shard)
        return pa.table({"number": tasks["number"]})

    def do(self, shard: Shard) -> None:
        """Write the file of a shard: beside its place, then renamed."""
        import pyarrow.parquet as pq

        target = _file(self.folder, shard["number"])
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
        try:
            pq.write_table(self._table(shard), partial, compression="zstd")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _table(self, shard: Shard) -> pa.Table:
        import pyarrow as pa

        names, sources = _read(shard)
        problems: dict[int, str] = {}
        rows = []
        config = self.config
        stream = self.detector.stream(
            _fetched(sources, config.batch.batch_size, problems),
            workers=config.loading.workers,
            threshold=config.threshold,
            tiling=config.tiling,
            tta=config.inference.tta,
        )
        for i, (name, found) in enumerate(zip(names, stream, strict=True)):
            rows.append({"index": shard["first"] + i, "source": name, **self._row(found, problems.get(i))})
        return pa.Table.from_pylist(rows, schema=_schema())

    def _row(self, found: ImageResult, problem: str | None) -> dict[str, Any]:
        if found.detections is None or problem is not None:
            return {"error": problem or str(found.error), "boxes": [], "scores": [], "class_ids": [], "classes": []}
        detections = self.detector.named(found.detections)
        return {
            "width": found.width,
            "height": found.height,
            "boxes": detections.xyxy.tolist(),
            "scores": detections.confidence.tolist() if detections.confidence is not None else [],
            "class_ids": detections.class_id.tolist() if detections.class_id is not None else [],
            "classes": class_names(detections),
            "error": None,
        }


def _schema() -> pa.Schema:
    """Return the columns of a result: one row for each picture."""
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


def _read(shard: Shard) -> tuple[list[str], list[str | bytes]]:
    """Return the names of a shard's pictures, and their paths or bytes."""
    import pyarrow.parquet as pq

    system, inner = _system(shard["file"])
    with system.open(inner, "rb") as file:
        table = pq.ParquetFile(file).read_row_group(shard["group"], columns=[shard["column"]])
    rows = table.slice(shard["offset"], shard["rows"])[shard["column"]].to_pylist()
    if shard["column"] in PATHS:
        paths = [_join(shard["base"], row) if row else "" for row in rows]
        return paths, list(paths)
    content = [row["bytes"] if isinstance(row, dict) else row for row in rows]
    first = shard["first"]
    return [f"{shard['file']}#{first + i}" for i in range(len(content))], [row or b"" for row in content]


def _fetched(sources: list[str | bytes], size: int, problems: dict[int, str]) -> Iterator[list[Source]]:
    """Yield the pictures a batch at a time, those of object stores fetched; notes what could not be."""

    def fetch(numbered: tuple[int, str | bytes]) -> Source:
        i, source = numbered
        if isinstance(source, bytes):
            return source
        if "://" not in source:
            return Path(source)
        try:
            system, inner = _system(source)
            return bytes(system.cat_file(inner))
        except (OSError, UserError) as error:
            problems[i] = f"{source}: {error or type(error).__name__}"
            return b""

    with ThreadPoolExecutor(FETCHERS) as pool:
        for batch in batched(enumerate(sources), size):
            yield list(pool.map(fetch, batch))


def _file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.parquet"


def _summary(folder: Path, shards: list[Shard], *, done_before: int) -> ScaleSummary:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    pictures = detections = failed = 0
    for shard in shards:
        table = pq.read_table(_file(folder, shard["number"]), columns=["scores", "error"])
        pictures += table.num_rows
        failed += table.num_rows - table["error"].null_count
        detections += pc.sum(pc.list_value_length(table["scores"])).as_py() or 0
    return ScaleSummary(
        pictures=pictures - failed,
        detections=detections,
        failed=failed,
        shards=len(shards),
        done_before=done_before,
        results=folder,
    )
