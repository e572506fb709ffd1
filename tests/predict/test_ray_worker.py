"""A worker of a Ray job writes a row with an error for each image that it cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.predict.made_ray import FakeRay, ray_engine, read_rows, run_job, write_model_and_images


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


def test_a_missing_image_is_a_row_with_its_error(folder: Path, tmp_path: Path, fake_ray: FakeRay) -> None:
    (tmp_path / "list.txt").write_text(f"{folder}/images/0.png\nfile://{tmp_path}/gone.png\ngone-too.png\n")
    summary = run_job(folder, tmp_path / "out", str(tmp_path / "list.txt"))
    assert (summary.images, summary.failed) == (1, 2)
    errors = {row["source"].rpartition("/")[2]: row["error"] for row in read_rows(tmp_path / "out")}
    assert errors.pop("0.png") is None
    assert set(errors) == {"gone.png", "gone-too.png"}
    assert all(name in error for name, error in errors.items())
