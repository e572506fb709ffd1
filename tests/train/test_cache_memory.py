"""`--cache ram`: the numbers of a run without a cache, and the refusal of too many images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinanet.config import TrainConfig, resolve
from retinanet.train import cache_memory, fit
from retinanet.train.cache_memory import check_cache_memory
from retinanet.train.memory import OutOfMemoryError

PATHS = {"train": "t", "val": "v", "output": "o", "cache": "ram"}
MB = 1_000_000


def config(**options: Any) -> TrainConfig:
    return resolve(TrainConfig, {**PATHS, **options})


def set_memory(monkeypatch: pytest.MonkeyPatch, *, free: int, shared: int = 10**12, start: str = "fork") -> None:
    monkeypatch.setattr(cache_memory, "main_memory", lambda: (free, 10**12))
    monkeypatch.setattr(cache_memory.os, "statvfs", lambda _: SimpleNamespace(f_bavail=shared, f_frsize=1))
    monkeypatch.setattr(cache_memory.multiprocessing, "get_start_method", lambda **_: start)


def test_more_images_than_memory_are_refused_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    set_memory(monkeypatch, free=1000 * MB)
    check_cache_memory(config(), 800 * MB, 10)
    with pytest.raises(OutOfMemoryError) as refused:
        check_cache_memory(config(), 801 * MB, 1234)
    assert str(refused.value) == (
        "--cache ram needs 801 MB for 1,234 images, found 1,000 MB of free memory, of which it may take 80%. "
        "Use --cache none, which reads the images in every epoch; or lower --image-size; or use a machine with more "
        "memory"
    )
    with pytest.raises(OutOfMemoryError, match="300 MB for 10 images in each of 3 processes"):
        check_cache_memory(config(devices=3), 300 * MB, 10)
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_cache_memory(config(devices=3), 300 * MB, 10)


def test_spawned_workers_need_shared_memory_for_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    set_memory(monkeypatch, free=10**12, shared=64 * MB)
    check_cache_memory(config(), 800 * MB, 10)
    set_memory(monkeypatch, free=10**12, shared=64 * MB, start="spawn")
    with pytest.raises(OutOfMemoryError, match=r"found 64 MB of free shared memory in /dev/shm.* --shm-size=2048m"):
        check_cache_memory(config(), 800 * MB, 10)
    check_cache_memory(config(workers=0), 800 * MB, 10)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_with_a_cache_equals_a_run_without(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    options = {**tiny, "epochs": 2, "workers": workers, "color_jitter": 0.3}
    rows = {}
    for cache in ("none", "ram"):
        fit(**{**options, "output": tmp_path / cache}, cache=cache)
        lines = (tmp_path / cache / "metrics.csv").read_text().splitlines()
        names = lines[0].split(",")
        kept = [i for i, name in enumerate(names) if "second" not in name and "time" not in name]
        rows[cache] = [[line.split(",")[i] for i in kept] for line in lines]
        assert ("image cache:" in capsys.readouterr().out) == (cache == "ram")
    assert rows["ram"] == rows["none"]
    assert len(rows["none"]) > 2


def test_a_run_whose_images_do_not_fit_writes_nothing(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    set_memory(monkeypatch, free=1000)
    with pytest.raises(OutOfMemoryError, match="--cache ram needs"):
        fit(**tiny, cache="ram")
    assert not (tiny["output"] / "config.yaml").exists()
