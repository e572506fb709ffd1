"""Prediction on a Ray cluster: detections as on one machine, each image exactly once, also after killed processes."""

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
from tests.predict.made_ray import FakeRay, pa, pq, ray_engine, read_rows, run_job, write_model_and_images

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with model.ckpt, and images/ with one invalid image."""
    return write_model_and_images(tmp_path_factory.mktemp("scale"))


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """Replace the Ray cluster by one worker in this process."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'retinanet[scale]'")
    fake = FakeRay()
    monkeypatch.setattr(ray_engine, "_process_shards", fake.run)
    return fake


def test_a_job_returns_the_detections_of_a_detector(folder: Path, tmp_path: Path, fake_ray: FakeRay) -> None:
    summary = run_job(folder, tmp_path / "out")
    assert (summary.images, summary.failed, summary.shards, summary.done_before) == (4, 1, 3, 0)
    rows = read_rows(tmp_path / "out")
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert [Path(row["source"]).name for row in rows] == ["0.png", "1.png", "2.png", "3.png", "broken.png"]
    assert "broken.png" in rows[-1]["error"]
    assert rows[-1]["boxes"] == []
    detector = retinanet.load(folder / "model.ckpt", "cpu")
    total = 0
    for row in rows[:4]:
        expected = detector.predict(row["source"])
        total += len(expected)
        assert len(expected) > 20
        assert row["error"] is None
        np.testing.assert_allclose(row["boxes"], expected.xyxy, atol=0.01)
        np.testing.assert_allclose(row["scores"], expected.confidence, atol=1e-5)
        assert row["class_ids"] == expected.class_id.tolist()
        assert row["classes"] == expected.data["class_name"].tolist()
    assert summary.detections == total
    assert (rows[0]["width"], rows[0]["height"]) == (200, 140)


@pytest.mark.slow
def test_a_second_run_processes_only_missing_shards(folder: Path, tmp_path: Path, fake_ray: FakeRay) -> None:
    run_job(folder, tmp_path / "out")
    files = sorted((tmp_path / "out" / "shards").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    expected = read_rows(tmp_path / "out")
    files[1].unlink()
    summary = run_job(folder, tmp_path / "out")
    assert summary.done_before == 2
    assert read_rows(tmp_path / "out") == expected
    after = [file.stat().st_mtime_ns for file in files]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    with pytest.raises(ConfigError, match=r"another job \(threshold differ\)"):
        run_job(folder, tmp_path / "out", threshold=0.9)
    with pytest.raises(ConfigError, match=r"another job \(bit_depth differ\)"):
        run_job(folder, tmp_path / "out", bit_depth=12)
    with pytest.raises(ConfigError, match=r"another job \(agnostic_nms differ\)"):
        run_job(folder, tmp_path / "out", agnostic_nms=True)
    fewer = run_job(folder, tmp_path / "out", threshold=0.9, overwrite=True)
    assert fewer.done_before == 0
    assert fewer.detections < sum(len(row["boxes"]) for row in expected)


def test_a_job_keeps_the_named_classes_only(folder: Path, tmp_path: Path, fake_ray: FakeRay) -> None:
    detector = retinanet.load(folder / "model.ckpt", "cpu")
    name = detector.classes[1]
    run_job(folder, tmp_path / "out", classes=[name])
    rows = read_rows(tmp_path / "out")
    for row in rows[:4]:
        assert set(row["classes"]) == {name}
        assert len(row["boxes"]) == len(detector.predict(row["source"], classes=[name]))
    with pytest.raises(UserError, match="differ"):
        run_job(folder, tmp_path / "out")
    with pytest.raises(UserError, match="which the model does not detect"):
        run_job(folder, tmp_path / "other", classes=["no class"])


def test_invalid_inputs_and_options_are_refused_before_prediction(
    folder: Path, tmp_path: Path, fake_ray: FakeRay
) -> None:
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
            run_job(folder, tmp_path / "out", *inputs, **options)
    assert not (tmp_path / "out" / "shards").exists()


def test_the_error_without_ray_names_the_extra_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'retinanet\[scale\]'"):
        run_job(folder, tmp_path / "out")


def worker_processes() -> list[int]:
    """Return the ids of the cluster's worker processes. Ray puts the class name into the process title."""
    process_ids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:  # the process has ended
                continue
            if title.startswith(b"ray::") and b"Worker" in title:
                process_ids.append(int(entry.name))
    return process_ids


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_image_is_processed_once_although_processes_are_killed(folder: Path, tmp_path: Path) -> None:
    """One worker of a real cluster is killed, then the whole job, which is started again."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'retinanet[scale]'")
    many = [str(folder / "images" / f"{i % 4}.png") for i in range(400)]
    pq.write_table(pa.table({"path": many}), tmp_path / "many.parquet")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "retinanet", "predict", str(folder / "model.ckpt"), str(tmp_path / "many.parquet")]
    command += ["--engine", "ray", "-o", str(output), "--shard-size", "10", "--batch-size", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RAY_TMPDIR": "/tmp", "RAY_ADDRESS": ""}  # noqa: S108

    def count_shards() -> int:
        return len(list((output / "shards").glob("part-*.parquet")))

    def wait_for_shards(count: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 120
        while count_shards() < count:
            assert process.poll() is None, "the job ended early"
            assert time.monotonic() < deadline, f"{count_shards()} shards after two minutes"
            time.sleep(0.02)

    log = (tmp_path / "log").open("wb")
    with subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as process:
        wait_for_shards(3, process)
        alive = worker_processes()
        assert alive, "no worker process was found"
        os.kill(alive[0], signal.SIGKILL)
        wait_for_shards(8, process)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    shards_before = count_shards()
    assert 8 <= shards_before < 40
    second_run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert second_run.returncode == 0, second_run.stdout + second_run.stderr
    report = re.search(r"400 images: .* \(40 files, (\d+) from an earlier run\)", " ".join(second_run.stdout.split()))
    assert report, second_run.stdout
    assert shards_before <= int(report[1]) < 40, "shards that workers finished after the job was killed count too"
    rows = read_rows(output)
    assert [row["index"] for row in rows] == list(range(400))
    assert [row["source"] for row in rows] == many
    expected = {row["source"]: (row["boxes"], row["scores"]) for row in rows[:4]}
    assert all(expected[row["source"]] == (row["boxes"], row["scores"]) for row in rows)
    assert json.loads((output / "manifest.json").read_text())["shards"] == 40
