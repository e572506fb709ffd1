"""Inputs of a Ray job: lists, tables and addresses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.predict.made_ray import FakeRay, pa, pq, ray_engine, read_rows, run_job, write_model_and_images


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


@pytest.mark.slow
def test_lists_tables_and_addresses_give_equal_results(folder: Path, tmp_path: Path, fake_ray: FakeRay) -> None:
    names = [f"{i}.png" for i in range(4)]
    paths = [folder / "images" / name for name in names]
    run_job(folder, tmp_path / "plain", *map(str, paths))
    expected = [(row["boxes"], row["scores"]) for row in read_rows(tmp_path / "plain")]
    image_list = folder / "images" / "list.txt"
    image_list.write_text("\n".join(["0.png", "", str(paths[1]), f"file://{paths[2]}", "3.png"]))
    content = [path.read_bytes() for path in paths]
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "path": names}), folder / "images" / "paths.parquet")
    pq.write_table(pa.table({"bytes": content}), tmp_path / "bytes.parquet", row_group_size=3)
    pq.write_table(pa.table({"image": [{"bytes": c, "path": None} for c in content]}), tmp_path / "hf.parquet")
    inputs = [
        (str(image_list),),
        (str(folder / "images" / "paths.parquet"),),
        (str(tmp_path / "bytes.parquet"),),
        (str(tmp_path / "hf.parquet"),),
        tuple(f"file://{path}" for path in paths),
        (f"file://{folder}/images/[0-9].png",),
    ]
    for i, arguments in enumerate(inputs):
        run_job(folder, tmp_path / str(i), *arguments)
        rows = sorted(read_rows(tmp_path / str(i)), key=lambda row: row["source"].rpartition("/")[2])
        assert [row["error"] for row in rows] == [None] * 4, arguments
        assert [(row["boxes"], row["scores"]) for row in rows] == expected, arguments
    image_list.unlink()
    (folder / "images" / "paths.parquet").unlink()


@pytest.mark.slow
def test_a_name_that_is_not_utf8_is_read_and_written_as_text(folder: Path, tmp_path: Path, fake_ray: FakeRay) -> None:
    image = tmp_path / os.fsdecode(b"bild_\xfc.png")
    image.write_bytes((folder / "images" / "0.png").read_bytes())
    run_job(folder, tmp_path / "out", str(image))
    ((source, error),) = [(row["source"], row["error"]) for row in read_rows(tmp_path / "out")]
    assert (source, error) == (f"{tmp_path}/bild_%FC.png", None)
