"""The memory that `--cache ram` needs, compared with the free memory before any image is decoded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from torch import multiprocessing

from retinanet.train.devices import device_counts
from retinanet.train.loader_workers import SHARED_MEMORY
from retinanet.train.memory import SHARE, OutOfMemoryError, main_memory

if TYPE_CHECKING:
    from retinanet.config import TrainConfig

_MB: Final = 1_000_000


def check_cache_memory(config: TrainConfig, size: int, images: int) -> None:
    """Raise `OutOfMemoryError` if the cached images take more than the share `SHARE` of the free memory.

    The first process of a machine checks for all of them, because the others may start while the first one decodes.
    Spawned workers receive the images through shared memory, so its free part is checked, too. Forked workers need no
    shared memory for the images. Systems that do not report their memory are not checked.

    Args:
        config: options of the training run.
        size: memory for the images of one process, bytes.
        images: number of image files.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        return
    processes, _ = device_counts(config)
    each = f" in each of {processes} processes" if processes > 1 else ""
    needed = f"{size / _MB:,.0f} MB for {images:,} images{each}"
    advice = "Use --cache none, which reads the images in every epoch"
    memory = main_memory()
    if memory is not None and processes * size > SHARE * memory[0]:
        raise OutOfMemoryError(
            f"--cache ram needs {needed}, found {memory[0] / _MB:,.0f} MB of free memory, of which it may take "
            f"{SHARE:.0%}. {advice}; or lower --image-size; or use a machine with more memory"
        )
    spawns = config.loading.workers > 0 and _start_method() != "fork"
    if not spawns or not SHARED_MEMORY.is_dir():
        return
    system = os.statvfs(SHARED_MEMORY)
    free = system.f_bavail * system.f_frsize
    if processes * size > SHARE * free:
        raise OutOfMemoryError(
            f"--cache ram needs {needed}, found {free / _MB:,.0f} MB of free shared memory in {SHARED_MEMORY}, through "
            f"which workers receive the images. {advice}; or use --workers 0; or enlarge the shared memory: "
            f"docker run --shm-size={2 ** (2 * processes * size // 2**20).bit_length()}m"
        )


def _start_method() -> str:
    """Return how workers start: fork, spawn or forkserver. `get_start_method()` alone would fix an open choice."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
