"""A user's package extends retinanet without a change of its code: the package is installed and used in training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.squares import make_squares

PACKAGE = Path(__file__).parent
SOURCES = PACKAGE.parents[1] / "src"
needs = pytest.mark.skipif(
    find_spec("albumentations") is None or find_spec("mlflow") is None, reason="needs the extras albumentations, mlflow"
)
QUICK: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 4,
    "image_size": 64,
    "max_size": 96,
    "fpn_width": 16,
    "head_width": 16,
    "head_depth": 1,
    "workers": 0,
    "device": "cpu",
    "pretrained": False,
}
TRAINING = {
    "transform": "retinanet_extras.transforms:weather",
    "callbacks": ["retinanet_extras.callbacks:LossLog"],
    "logger": "mlflow",
}
PARTS = {
    "backbone": "retinanet_extras.backbone:SmallBackbone",
    "loss": "retinanet_extras.losses:DistanceFocalLoss",
    "assigner": "retinanet_extras.assigner:TopKAssigner",
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Install the package offline into a temporary folder, and return the environment variables to use it."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True)
    paths = os.pathsep.join([str(folder / "site"), str(SOURCES)])
    hidden = {"MLFLOW_TRACKING_URI", "MLFLOW_ALLOW_FILE_STORE"}
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    return {**variables, "PYTHONPATH": paths, "NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder with a dataset as COCO JSON and in the annotation format of the package."""
    for name, seed in (("train", 1), ("val", 2)):
        path = make_squares(tmp_path / name, count=6, seed=seed)
        content = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        lines = [f"{image['file_name']}" for image in content["images"]]
        files = {image["id"]: image["file_name"] for image in content["images"]}
        for annotation in content["annotations"]:
            x, y, w, h = annotation["bbox"]
            lines.append(f"{files[annotation['image_id']]} {x} {y} {x + w} {y + h} {names[annotation['category_id']]}")
        (tmp_path / name / "images" / "all.boxes").write_text("\n".join(lines))
    return tmp_path


def run(arguments: list[str], environment: dict[str, str], folder: Path) -> str:
    process = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def flags(options: dict[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return words


def weights(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def check_callback_and_logger(folder: Path, name: str) -> None:
    assert len((folder / name / "losses.txt").read_text().splitlines()) == 1, "the callback did not run"
    run_id = json.loads((folder / name / "logger.json").read_text())["mlflow"]
    [metrics] = (folder / "mlruns").glob(f"*/{run_id}/metrics")
    assert (metrics / "AP").exists(), "the logger did not run"


def train_in_three_ways(options: dict[str, Any], environment: dict[str, str], folder: Path) -> None:
    """Train from the command line, from YAML and in Python, and check that the weights are the same."""
    run(["-m", "retinanet", "train", "-o", "flags", *flags(options)], environment, folder)
    (folder / "options.yaml").write_text(yaml.safe_dump({**options, "output": "yaml"}))
    script = f"""
import json
from retinanet import fit
from retinanet.cli import main
from retinanet_extras.callbacks import LossLog
from retinanet_extras.transforms import weather
try:
    main(["train", "--config", "options.yaml"])
except SystemExit as exit_status:
    assert not exit_status.code, exit_status.code
fit(**{ {**options, "output": "python"}!r} | {{"transform": weather(), "callbacks": [LossLog()]}})
"""
    run(["-c", script], environment, folder)
    first = weights(folder / "flags" / "last.ckpt")
    for name in ("flags", "yaml", "python"):
        check_callback_and_logger(folder, name)
        other = weights(folder / name / "last.ckpt")
        assert all(torch.equal(first[key], other[key]) for key in first), name


@needs
@pytest.mark.slow
def test_training_uses_transform_callback_and_logger(environment: dict[str, str], work: Path) -> None:
    data = {"train": "train/annotations.json", "val": "val/annotations.json", "preset": "small"}
    train_in_three_ways({**data, **QUICK, **TRAINING}, environment, work)


@needs
@pytest.mark.slow
def test_a_model_with_all_extensions_is_trained_exported_and_used(environment: dict[str, str], work: Path) -> None:
    """The extensions are backbone, loss, assigner, transform, annotation format, callback and logger."""
    data = {"train": "train/images/all.boxes", "val": "val/images/all.boxes"}
    train_in_three_ways({**data, **QUICK, **TRAINING, **PARTS}, environment, work)
    run(["-m", "retinanet", "export", "flags/best.ckpt", "-o", "model.onnx"], environment, work)
    run(["-m", "retinanet", "predict", "model.onnx", "val/images/0.png", "-o", "detections"], environment, work)
    assert (work / "detections").is_dir()
    environment = {**environment, "PYTHONPATH": str(SOURCES)}
    process = subprocess.run(
        [sys.executable, "-m", "retinanet", "predict", "flags/best.ckpt", "val/images/0.png", "-o", "refused"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "retinanet_extras.backbone" in process.stderr, "a checkpoint must not import a module that is not allowed"
