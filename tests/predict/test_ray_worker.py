"""A worker of a Ray job: images that cannot be read are rows with their errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.predict.made_ray import FakeRay, job, make_folder, rows, scale


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


def test_what_is_not_there_is_a_row_with_its_error(folder: Path, tmp_path: Path, here: FakeRay) -> None:
    (tmp_path / "list.txt").write_text(f"{folder}/images/0.png\nfile://{tmp_path}/gone.png\ngone-too.png\n")
    done = job(folder, tmp_path / "out", str(tmp_path / "list.txt"))
    assert (done.images, done.failed) == (1, 2)
    errors = {row["source"].rpartition("/")[2]: row["error"] for row in rows(tmp_path / "out")}
    assert errors.pop("0.png") is None
    assert set(errors) == {"gone.png", "gone-too.png"}
    assert all(name in error for name, error in errors.items())
