"""Inputs of a Ray job: lists, tables and addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.predict.made_ray import FakeRay, job, make_folder, pa, pq, rows, scale


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


@pytest.mark.slow
def test_lists_tables_and_addresses_give_the_same(folder: Path, tmp_path: Path, here: FakeRay) -> None:
    names = [f"{i}.png" for i in range(4)]
    paths = [folder / "images" / name for name in names]
    job(folder, tmp_path / "plain", *map(str, paths))
    expected = [(row["boxes"], row["scores"]) for row in rows(tmp_path / "plain")]
    listed = folder / "images" / "list.txt"
    listed.write_text("\n".join(["0.png", "", str(paths[1]), f"file://{paths[2]}", "3.png"]))
    content = [path.read_bytes() for path in paths]
    pq.write_table(pa.table({"id": [1, 2, 3, 4], "path": names}), folder / "images" / "paths.parquet")
    pq.write_table(pa.table({"bytes": content}), tmp_path / "bytes.parquet", row_group_size=3)
    pq.write_table(pa.table({"image": [{"bytes": c, "path": None} for c in content]}), tmp_path / "hf.parquet")
    inputs = [
        (str(listed),),
        (str(folder / "images" / "paths.parquet"),),
        (str(tmp_path / "bytes.parquet"),),
        (str(tmp_path / "hf.parquet"),),
        tuple(f"file://{path}" for path in paths),
        (f"file://{folder}/images/[0-9].png",),
    ]
    for i, given in enumerate(inputs):
        job(folder, tmp_path / str(i), *given)
        found = sorted(rows(tmp_path / str(i)), key=lambda row: row["source"].rpartition("/")[2])
        assert [row["error"] for row in found] == [None] * 4, given
        assert [(row["boxes"], row["scores"]) for row in found] == expected, given
    listed.unlink()
    (folder / "images" / "paths.parquet").unlink()
