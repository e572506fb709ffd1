"""Faults from outside: a full disk, a limit on file sizes, a folder made read-only, an image that is deleted."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retinanet.train.detection_module import DetectionModule
from tests.train.runs import Options, assert_same_run, run, start


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk(options: Options, undisturbed: Callable[..., Path], small_disk: Path, tmp_path: Path):
    """The disk fills within the writing of the second checkpoint: the first is whole, and the run goes on from it."""
    size = (undisturbed() / "last.ckpt").stat().st_size
    full = {**options, "output": small_disk / "run"}
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler = small_disk / "filler"
    filler.write_bytes(bytes(max(0, free - int(1.5 * size))))
    assert run(full, tmp_path / "full.log") == 2
    said = (tmp_path / "full.log").read_text()
    assert "last.ckpt cannot be written: No space left on device" in said
    assert "last.ckpt is whole; when it can be written again, `retinanet train --resume" in said
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
    assert run({**full, "resume": True}, tmp_path / "full.log") == 0, (tmp_path / "full.log").read_text()
    assert_same_run(undisturbed(), full["output"])


class _FileLimit:
    """No file may grow past a size: what a quota does, without the right to mount."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@pytest.mark.slow
def test_a_file_limit(options: Options, undisturbed: Callable[..., Path], tmp_path: Path):
    """From the second epoch on no checkpoint can be written."""
    size = (undisturbed() / "last.ckpt").stat().st_size
    other = {**options, "output": tmp_path / "other"}
    assert run({**other, "epochs": 3, "max_steps": 3}, tmp_path / "log") == 0
    shutil.rmtree(other["output"])
    assert run(other, tmp_path / "limit.log", _FileLimit(size // 2)) == 2
    said = (tmp_path / "limit.log").read_text()
    assert "last.ckpt cannot be written: File too large" in said
    assert not list(other["output"].glob("*.partial"))
    assert run({**other, "resume": True}, tmp_path / "limit.log") == 0
    assert_same_run(undisturbed(), other["output"])


@pytest.mark.slow
def test_a_folder_made_read_only_under_way(
    options: Options, undisturbed: Callable[..., Path], small_disk: Path, tmp_path: Path
):
    subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
    other = {**options, "output": small_disk / "run"}
    process = start({**other}, tmp_path / "other.log", _Remount(small_disk))
    process.join(300)
    said = (tmp_path / "other.log").read_text()
    assert process.exitcode == 2, said
    assert "cannot be written: Read-only file system" in said
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert run({**other, "resume": True}, tmp_path / "other.log") == 0, (tmp_path / "other.log").read_text()
    assert_same_run(undisturbed(), other["output"])


class _Remount:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> None:
        from retinanet.train.output_files import Table

        original = Table.add
        seen = []

        def add(table: Table, row: dict[str, object]) -> None:
            seen.append(row)
            if len(seen) == 8:  # within the second epoch
                subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], check=True)
            original(table, row)

        Table.add = add  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("which", ["train", "val"])
def test_a_image_that_goes(
    options: Options, undisturbed: Callable[..., Path], tmp_path: Path, workers: int, which: str
):
    """It is named, what was done is saved, and with the image back the run ends as if nothing had been."""
    for name in ("train", "val"):
        shutil.copytree(options[name].parent, tmp_path / "data" / name)
        options[name] = tmp_path / "data" / name / "annotations.json"
    other = {**options, "workers": workers, "output": tmp_path / "other"}
    image = options[which].parent / "images" / "5.png"
    process = start({**other, "epochs": 3}, tmp_path / "other.log", _Vanish(image))
    process.join(300)
    said = (tmp_path / "other.log").read_text()
    assert process.exitcode == 2, said
    assert str(image) in said
    assert "Traceback" not in said.rpartition("error: ")[2]
    assert "--resume" in said
    shutil.copy(image.with_suffix(".kept"), image)
    assert run({**other, "resume": True}, tmp_path / "other.log") == 0, (tmp_path / "other.log").read_text()
    assert_same_run(undisturbed(), other["output"])


class _Vanish:
    """Remove an image when the first step is done."""

    def __init__(self, image: Path) -> None:
        self.image = image

    def __call__(self) -> None:
        original = DetectionModule.training_step

        def step(module: DetectionModule, *args: object) -> object:
            if module.global_step == 4 and self.image.exists():
                self.image.rename(self.image.with_suffix(".kept"))
            return original(module, *args)

        DetectionModule.training_step = step  # type: ignore[method-assign]
