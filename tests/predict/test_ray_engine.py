"""Prediction on a Ray cluster: the same detections as on one machine, every image once, whatever dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import retinanet
from retinanet.errors import ConfigError, UserError
from tests.predict.made_ray import FakeRay, job, make_folder, pa, pq, rows, scale

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.ckpt, and images/ with one that is broken."""
    return make_folder(tmp_path_factory.mktemp("scale"))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """Without a cluster: all but `_run`."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'retinanet[scale]'")
    fake = FakeRay()
    monkeypatch.setattr(scale, "_run", fake.run)
    return fake


def test_the_same_as_one_by_one(folder: Path, tmp_path: Path, here: FakeRay) -> None:
    done = job(folder, tmp_path / "out")
    assert (done.images, done.failed, done.shards, done.done_before) == (4, 1, 3, 0)
    found = rows(tmp_path / "out")
    assert [row["index"] for row in found] == [0, 1, 2, 3, 4]
    assert [Path(row["source"]).name for row in found] == ["0.png", "1.png", "2.png", "3.png", "broken.png"]
    assert "broken.png" in found[-1]["error"]
    assert found[-1]["boxes"] == []
    detector = retinanet.load(folder / "model.ckpt", "cpu")
    total = 0
    for row in found[:4]:
        alone = detector.predict(row["source"])
        total += len(alone)
        assert len(alone) > 20
        assert row["error"] is None
        np.testing.assert_allclose(row["boxes"], alone.xyxy, atol=0.01)
        np.testing.assert_allclose(row["scores"], alone.confidence, atol=1e-5)
        assert row["class_ids"] == alone.class_id.tolist()
        assert row["classes"] == alone.data["class_name"].tolist()
    assert done.detections == total
    assert (found[0]["width"], found[0]["height"]) == (200, 140)


def test_a_second_run_does_what_is_missing(folder: Path, tmp_path: Path, here: FakeRay) -> None:
    job(folder, tmp_path / "out")
    files = sorted((tmp_path / "out" / "shards").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    expected = rows(tmp_path / "out")
    files[1].unlink()
    done = job(folder, tmp_path / "out")
    assert done.done_before == 2
    assert rows(tmp_path / "out") == expected
    after = [file.stat().st_mtime_ns for file in files]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    with pytest.raises(ConfigError, match=r"another job \(threshold differ\)"):
        job(folder, tmp_path / "out", threshold=0.9)
    fewer = job(folder, tmp_path / "out", threshold=0.9, overwrite=True)
    assert fewer.done_before == 0
    assert fewer.detections < sum(len(row["boxes"]) for row in expected)


def test_what_does_not_fit_is_refused_first(folder: Path, tmp_path: Path, here: FakeRay) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    for inputs, options, match in (
        ((), {"track": True}, "leave out --track"),
        ((), {"format": "csv"}, "leave out --format"),
        ((str(tmp_path / "no"),), {}, "no such file or folder"),
        ((str(folder / "model.ckpt"),), {}, "expected an image, a folder, a list"),
        ((str(tmp_path / "x.parquet"),), {}, "expected a column of encoded images"),
        (("nothing://bucket/x",), {}, "nothing"),
    ):
        with pytest.raises(UserError, match=match):
            job(folder, tmp_path / "out", *inputs, **options)
    assert not (tmp_path / "out" / "shards").exists()


def test_without_ray_the_extra_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'retinanet\[scale\]'"):
        job(folder, tmp_path / "out")


def workers() -> list[int]:
    """Processes of the cluster that hold a model: Ray names them after what they run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:  # gone meanwhile
                continue
            if title.startswith(b"ray::") and b"Worker" in title:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_worker_loses_and_repeats_nothing(folder: Path, tmp_path: Path) -> None:
    """A real cluster of two workers; one is killed under way, then the whole job, which is then run again."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'retinanet[scale]'")
    many = [str(folder / "images" / f"{i % 4}.png") for i in range(400)]
    pq.write_table(pa.table({"path": many}), tmp_path / "many.parquet")
    output = tmp_path / "out"
    words = ["predict", str(folder / "model.ckpt"), str(tmp_path / "many.parquet"), "--engine", "ray"]
    command = [sys.executable, "-m", "retinanet", *words, "-o", str(output), "--shard-size", "10", "--batch-size", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RAY_TMPDIR": "/tmp", "RAY_ADDRESS": ""}  # noqa: S108

    def finished() -> int:
        return len(list((output / "shards").glob("part-*.parquet")))

    def until(count: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 120
        while finished() < count:
            assert process.poll() is None, "the job ended early"
            assert time.monotonic() < deadline, f"{finished()} shards after two minutes"
            time.sleep(0.02)

    log = (tmp_path / "log").open("wb")
    with subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as process:
        until(3, process)
        alive = workers()
        assert alive, "no worker was found to be killed"
        os.kill(alive[0], signal.SIGKILL)
        until(8, process)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    was = finished()
    assert 8 <= was < 40
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"400 images: .* \(40 files, (\d+) from an earlier run\)", " ".join(done.stdout.split()))
    assert said, done.stdout
    assert was <= int(said[1]) < 40, "what the workers of the killed job ended counts"
    found = rows(output)
    assert [row["index"] for row in found] == list(range(400))
    assert [row["source"] for row in found] == many
    each = {row["source"]: (row["boxes"], row["scores"]) for row in found[:4]}
    assert all(each[row["source"]] == (row["boxes"], row["scores"]) for row in found)
    assert json.loads((output / "manifest.json").read_text())["shards"] == 40
