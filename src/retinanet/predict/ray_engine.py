"""Prediction over millions of images on a Ray cluster: `retinanet predict MODEL SOURCE... --engine ray -o OUT`.

The images are numbered and divided into shards. A worker reads the images of a shard, predicts, and writes one Parquet
file per shard. The file gets its final name only once it is complete. A shard is therefore finished exactly if its file
exists, even if workers are killed, and no image appears in two files. Ray Data assigns the shards to workers, restarts
killed workers, and limits the number of waiting shards.

Ray and pyarrow are installed by the extra `scale`. Boxes are xyxy in original pixels.
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

from retinanet.config import PredictConfig, flatten, torch_device_name
from retinanet.errors import ConfigError, UserError, explain_missing, list_names
from retinanet.files import write_atomically
from retinanet.predict.loading import load
from retinanet.predict.ray_inputs import Shard, divide_into_shards
from retinanet.predict.ray_worker import SHARDS, Worker, shard_file
from retinanet.progress import ProgressBar, no_progress_bar

MANIFEST: Final = "manifest.json"
"""File in the output folder with the model, inputs and options of the job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleSummary:
    """Result of a job, including the shards that earlier runs finished.

    Args:
        images: number of images that were processed, without failed images.
        detections: number of detections.
        failed: number of images that cannot be read. Their rows contain the error.
        shards: number of shards, and of Parquet files.
        done_before: number of shards that earlier runs finished.
        results: folder of the Parquet files.
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
    """Detect objects in all images, on the Ray cluster of RAY_ADDRESS or on the cores of this machine.

    Shards that an earlier run with the same model, inputs and options has finished are not processed again.

    Args:
        model: checkpoint or exported model. Its path must be the same on all machines.
        inputs: images, text lists of images (.txt), Parquet files with paths or encoded images, and folders of such
            files. Each input may be an object store address that fsspec reads (s3://, gs://, ...).
        config: options. The output folder must be shared by all machines.
        workers: number of worker processes, each with one core and one copy of the model, and one GPU if the cluster
            has GPUs. None: all cores or GPUs of the cluster.
        progress: function that opens a progress bar.

    Raises:
        UserError: an input or the model does not exist, an option is invalid with `--engine ray`, or the output folder
            contains results of another job.
    """
    try:
        import pyarrow  # noqa: F401
        import ray
    except ModuleNotFoundError as error:
        raise explain_missing(error, "--engine ray") from error
    _check_options(config)
    if not model.exists():
        raise UserError(f"no such file: {model}")
    if config.classes:  # an unknown name is refused here, before the workers start
        load(model, "cpu").labels_of(config.classes)
    folder = config.folder.output / SHARDS
    shards, digest = divide_into_shards(inputs, config)
    _write_manifest(
        config, {"model": _digest(model), "inputs": digest, "shards": len(shards), **_result_options(config)}
    )
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in shards if not shard_file(folder, shard["number"]).exists()]
    if missing:
        _process_shards(ray, missing, model.resolve(), config, workers, progress)
    lost = [str(shard["number"]) for shard in shards if not shard_file(folder, shard["number"]).exists()]
    if lost:
        raise UserError(
            f"{len(lost):,} shards are missing ({list_names(lost)}) because their workers failed: run the same command "
            "again"
        )
    for abandoned in folder.glob("*.partial"):  # left by killed workers
        abandoned.unlink(missing_ok=True)
    return _summarise(folder, shards, done_before=len(shards) - len(missing))


def _check_options(config: PredictConfig) -> None:
    """Raise `ConfigError` for options that only the local engine supports."""
    if config.track or config.fps:
        raise ConfigError("--engine ray does not support videos: leave out --track and --fps")
    if config.ids_from is not None or config.format != PredictConfig.format:
        raise ConfigError("--engine ray writes only Parquet files: leave out --format and --ids-from")


def _result_options(config: PredictConfig) -> dict[str, Any]:
    """Return the options that the results depend on."""
    names = ("threshold", "tta", "tile", "overlap", "precision", "shard_size")
    values = flatten(config)
    options = {name: values[name] for name in names}
    if values["bit_depth"]:  # left out if automatic: manifests of earlier versions do not contain it
        options["bit_depth"] = values["bit_depth"]
    for name in ("agnostic_nms", "nms_threshold"):
        if values[name] is not None:  # left out if not given, for the same reason
            options[name] = values[name]
    if config.classes:
        options["classes"] = list(config.classes)
    return options


def _digest(path: Path) -> str:
    """Return the SHA-256 of a model file, including OpenVINO's .bin file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and weights.exists():
        with weights.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _write_manifest(config: PredictConfig, job: dict[str, Any]) -> None:
    """Write the manifest of the job, or check that the existing manifest is equal.

    Raises:
        ConfigError: the output folder contains results of another job, and `overwrite` is not set.
    """
    path, folder = config.folder.output / MANIFEST, config.folder.output / SHARDS
    if path.exists():
        previous_job = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*job, *previous_job} if job.get(name) != previous_job.get(name))
        if not changed:
            return
        if not config.existing.overwrite:
            raise ConfigError(
                f"{config.folder.output} contains results of another job ({', '.join(changed)} differ): give "
                "--overwrite to replace them, or another folder"
            )
        for file in folder.glob("part-*"):
            file.unlink()
    write_atomically(path, json.dumps(job, indent=1) + "\n")


def _process_shards(
    ray: Any, shards: list[Shard], model: Path, config: PredictConfig, workers: int | None, progress: ProgressBar
) -> None:
    """Process the shards on Ray. Each worker processes one shard at a time."""
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    starts_ray = not ray.is_initialized()
    if starts_ray:
        address = {"address": "auto"} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **address)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        cluster = ray.cluster_resources()
        device = torch_device_name(config.hardware.device).partition(":")[0]
        gpus = int(cluster.get("GPU", 0)) if device in {"auto", "cuda"} else 0
        count = workers or max(1, min(gpus or int(cluster.get("CPU", 1)), len(shards)))
        tasks = ray.data.from_items([dict(shard) for shard in shards], override_num_blocks=min(len(shards), 20_000))
        finished = tasks.map_batches(
            Worker,
            batch_size=1,
            batch_format="pyarrow",
            fn_constructor_args=(str(model), config, bool(gpus)),
            compute=ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            num_gpus=1 if gpus else None,
        )
        with progress("shards", len(shards)) as advance:
            for _ in finished.iter_rows():
                advance()
    finally:
        if starts_ray:
            ray.shutdown()


def _summarise(folder: Path, shards: list[Shard], *, done_before: int) -> ScaleSummary:
    """Return the counts over the Parquet files of all shards."""
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
