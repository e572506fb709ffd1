"""Prediction over millions of images on a Ray cluster: `retinanet predict MODEL SOURCE... --engine ray -o OUT`.

The images are numbered and divided into shards. A worker reads the images of a shard, predicts, and writes the
shard's Parquet file under its name when it is whole: a shard whose file is there is done, whoever dies, and no image
stands in two files. Ray Data hands out the shards, starts workers anew that died, and holds back what nobody has time
for.

Ray and pyarrow come with the extra `scale`. Boxes are xyxy in original pixels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from retinanet.config import PredictConfig, flatten
from retinanet.errors import ConfigError, UserError, explain_missing, list_names
from retinanet.files import write_atomically
from retinanet.predict.ray_inputs import Shard, divide_into_shards
from retinanet.predict.ray_worker import SHARDS, Worker, shard_file
from retinanet.progress import ProgressBar, no_progress_bar

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleSummary:
    """What became of a job.

    Args:
        images: looked at, in this run and those before it.
        detections: found in them.
        failed: images that could not be read; their rows hold the error.
        shards: files in the output folder.
        done_before: of them, how many an earlier run had finished.
        results: the folder of the files.
    """

    images: int
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
    """Detect in all images, on the Ray cluster that RAY_ADDRESS names, or on this machine's cores.

    What an earlier run with the same model, inputs and options left in the output folder is not done again.

    Args:
        model: a checkpoint or an exported model, under the same path on all machines.
        inputs: images, folders, text lists of images (.txt), Parquet files (of paths or of encoded images), and
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
    shards, digest = divide_into_shards(inputs, config)
    _claim(config, {"model": _digest(model), "inputs": digest, "shards": len(shards), **_options(config)})
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in shards if not shard_file(folder, shard["number"]).exists()]
    if missing:
        _run(ray, missing, model.resolve(), config, workers, progress)
    lost = [str(shard["number"]) for shard in shards if not shard_file(folder, shard["number"]).exists()]
    if lost:  # Ray has given up on a worker, and said why
        raise UserError(f"{len(lost):,} shards are missing ({list_names(lost)}): run the same command again")
    for abandoned in folder.glob("*.partial"):  # of workers that were killed
        abandoned.unlink(missing_ok=True)
    return _summary(folder, shards, done_before=len(shards) - len(missing))


def _refuse(config: PredictConfig) -> None:
    """Refuse what the local engine alone can do."""
    if config.track or config.fps:
        raise ConfigError("--engine ray takes images, no videos: leave out --track and --fps")
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


def _summary(folder: Path, shards: list[Shard], *, done_before: int) -> ScaleSummary:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    images = detections = failed = 0
    for shard in shards:
        table = pq.read_table(shard_file(folder, shard["number"]), columns=["scores", "error"])
        images += table.num_rows
        failed += table.num_rows - table["error"].null_count
        detections += pc.sum(pc.list_value_length(table["scores"])).as_py() or 0
    return ScaleSummary(
        images=images - failed,
        detections=detections,
        failed=failed,
        shards=len(shards),
        done_before=done_before,
        results=folder,
    )
