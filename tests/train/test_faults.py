"""External faults during training: a full disk, a limit on file sizes, a read-only folder, a deleted image."""

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
    """Return a file system of 300 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(folder)], check=False)
    if mount.returncode:
        pytest.skip("needs permission to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_run_resumes_after_a_full_disk(
    options: Options, uninterrupted: Callable[..., Path], small_disk: Path, tmp_path: Path
):
    """The disk fills while the second checkpoint is written. Training resumes from the first, complete checkpoint."""
    size = (uninterrupted() / "last.ckpt").stat().st_size
    full = {**options, "output": small_disk / "run"}
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler = small_disk / "filler"
    filler.write_bytes(bytes(max(0, free - int(1.5 * size))))
    assert run(full, tmp_path / "full.log") == 2
    log = (tmp_path / "full.log").read_text()
    assert "last.ckpt cannot be written: No space left on device" in log
    assert "last.ckpt is complete." in log
    assert "then resume with: retinanet train --resume" in log
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
    assert run({**full, "resume": True}, tmp_path / "full.log") == 0, (tmp_path / "full.log").read_text()
    assert_same_run(uninterrupted(), full["output"])


class _FileLimit:
    """Limit the size of files, as a quota does, but without the permission to mount a file system."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@pytest.mark.slow
def test_a_run_resumes_after_a_file_limit(options: Options, uninterrupted: Callable[..., Path], tmp_path: Path):
    """The limit is below the size of a checkpoint, so no checkpoint can be written."""
    size = (uninterrupted() / "last.ckpt").stat().st_size
    other = {**options, "output": tmp_path / "other"}
    assert run({**other, "epochs": 3, "max_steps": 3}, tmp_path / "log") == 0
    shutil.rmtree(other["output"])
    assert run(other, tmp_path / "limit.log", _FileLimit(size // 2)) == 2
    log = (tmp_path / "limit.log").read_text()
    assert "last.ckpt cannot be written: File too large" in log
    assert not list(other["output"].glob("*.partial"))
    assert run({**other, "resume": True}, tmp_path / "limit.log") == 0
    assert_same_run(uninterrupted(), other["output"])


@pytest.mark.slow
def test_a_run_resumes_after_its_folder_was_read_only(
    options: Options, uninterrupted: Callable[..., Path], small_disk: Path, tmp_path: Path
):
    subprocess.run(["mount", "-o", "remount,size=600m", str(small_disk)], check=True)
    other = {**options, "output": small_disk / "run"}
    process = start({**other}, tmp_path / "other.log", _RemountReadOnly(small_disk))
    process.join(300)
    log = (tmp_path / "other.log").read_text()
    assert process.exitcode == 2, log
    assert "cannot be written: Read-only file system" in log
    subprocess.run(["umount", str(small_disk)], check=True)
    assert run({**other, "resume": True}, tmp_path / "other.log") == 0, (tmp_path / "other.log").read_text()
    assert_same_run(uninterrupted(), other["output"])


class _RemountReadOnly:
    """Make the file system read-only within the second epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> None:
        from retinanet.train.output_files import CsvTable

        original = CsvTable.append
        rows = []

        def append(table: CsvTable, row: dict[str, object]) -> None:
            rows.append(row)
            if len(rows) == 8:  # within the second epoch
                # Over itself: the lock of the run folder is open for writing, which forbids to remount the disk itself.
                subprocess.run(["mount", "--bind", str(self.folder), str(self.folder)], check=True)
                subprocess.run(["mount", "-o", "remount,bind,ro", str(self.folder)], check=True)
            original(table, row)

        CsvTable.append = append  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("which", ["train", "val"])
def test_a_run_resumes_after_an_image_that_goes_missing(
    options: Options, uninterrupted: Callable[..., Path], tmp_path: Path, workers: int, which: str
):
    """The error names the image, a checkpoint is saved, and the resumed run equals an uninterrupted run."""
    for name in ("train", "val"):
        shutil.copytree(options[name].parent, tmp_path / "data" / name)
        options[name] = tmp_path / "data" / name / "annotations.json"
    other = {**options, "workers": workers, "output": tmp_path / "other"}
    image = options[which].parent / "images" / "5.png"
    process = start({**other, "epochs": 3}, tmp_path / "other.log", _RemoveImage(image))
    process.join(300)
    log = (tmp_path / "other.log").read_text()
    assert process.exitcode == 2, log
    assert str(image) in log
    assert "Traceback" not in log.rpartition("error: ")[2]
    assert "--resume" in log
    shutil.copy(image.with_suffix(".kept"), image)
    assert run({**other, "resume": True}, tmp_path / "other.log") == 0, (tmp_path / "other.log").read_text()
    assert_same_run(uninterrupted(), other["output"])


class _RemoveImage:
    """Remove an image at step 4, within the second epoch."""

    def __init__(self, image: Path) -> None:
        self.image = image

    def __call__(self) -> None:
        original = DetectionModule.training_step

        def step(module: DetectionModule, *args: object) -> object:
            if module.global_step == 4 and self.image.exists():
                self.image.rename(self.image.with_suffix(".kept"))
            return original(module, *args)

        DetectionModule.training_step = step  # type: ignore[method-assign]
