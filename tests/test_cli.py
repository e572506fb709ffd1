"""The command line: options from flags, files and presets, what is refused, and what the exit status says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import retinanet.train
from retinanet.cli import main
from retinanet.config import PRESETS, TrainConfig, resolve, to_dict


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Return the configs that `train` was called with, instead of training."""
    configs: list[TrainConfig] = []
    monkeypatch.setattr(retinanet.train, "fit", configs.append)
    monkeypatch.setattr("retinanet.train.output_files.rank_zero", lambda: False)  # nothing is printed or reported
    return configs


DATA = ("--train", "t.json", "--val", "v.json", "-o", "out")


def test_flags_go_before_the_file_and_it_before_the_preset(seen, tmp_path: Path):
    (tmp_path / "c.yaml").write_text("epochs: 3\nlr: 1e-3\nanchor_sizes: [16, 32, 64, 128, 256]\ntrain: other.json\n")
    words = ("--val", "v.json", "-o", "out", "--preset", "small", "--config", tmp_path / "c.yaml", "--epochs", "5")
    assert run("train", *words) == 0
    (config,) = seen
    assert (config.schedule.epochs, config.optimiser.lr, config.train) == (5, 1e-3, Path("other.json"))
    assert config.model.anchor_sizes == (16, 32, 64, 128, 256)
    assert config.model.backbone == PRESETS["small"]["backbone"]
    assert config.loss.alpha == 0.75


def test_the_preset_may_come_from_the_file_and_many_values_from_one_flag(seen, tmp_path: Path):
    (tmp_path / "c.yaml").write_text("preset: paper\n")
    assert run("train", *DATA, "--config", tmp_path / "c.yaml", "--multi-scale", 480, 512, "--no-augment") == 0
    assert seen[0].loss.alpha == 0.25
    assert seen[0].augmentation.multi_scale == (480, 512)
    assert seen[0].augmentation.augment is False


def test_flags_and_python_arguments_give_the_same_config(seen):
    assert run("train", *DATA, "--preset", "small", "--gamma", 1.5, "--scale-jitter", 0.5, 2) == 0
    options = {"train": "t.json", "val": "v.json", "output": "out", "preset": "small", "gamma": 1.5}
    assert to_dict(seen[0]) == to_dict(resolve(TrainConfig, {**options, "scale_jitter": [0.5, 2]}))


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (("--epoch", 3), "", "Did you mean --epochs"),
        ((), "epoch: 3", "unknown option 'epoch'. Did you mean 'epochs'"),
        (("--loss", "foca"), "", "Did you mean 'focal'"),
        (("--preset", "smal"), "", 'Did you mean "small"'),
        (("--epochs", "many"), "", "--epochs"),
        ((), "epochs: many", "epochs"),
        (("--epochs", -1), "", "epochs must be above 0, found -1"),
        (("--anchor-sizes", 1, 2), "", "one size for each of the 5 levels"),
        (("--resume", "--overwrite"), "", "give one of them"),
        ((), "- a list", "must hold"),
        ((), "a: [", "not YAML"),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest_right_one(seen, capsys, tmp_path: Path, words, text, said):
    (tmp_path / "c.yaml").write_text(text)
    assert run("train", *DATA, "--config", tmp_path / "c.yaml", *words) == 2
    captured = capsys.readouterr()
    assert said in " ".join((captured.out + captured.err).replace("│", " ").split())
    assert not seen


def test_a_missing_file_and_a_missing_option(seen, capsys):
    assert run("train", *DATA, "--config", "absent.yaml") == 2
    assert "absent.yaml cannot be read" in capsys.readouterr().err
    assert run("train", "--train", "t.json") == 2
    assert not seen


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "demo"])
def test_every_command_explains_itself(command, capsys):
    assert run(command, "--help") == 0
    assert "Usage: retinanet" in capsys.readouterr().out


def test_help_imports_neither_a_command_nor_anything_heavy():
    code = (
        "import sys\nfrom retinanet.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('numpy', 'PIL', 'cv2', 'torch', 'yaml', 'retinanet.config', 'retinanet.commands.train')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "convert-weights" in found.stdout
    assert found.stderr.strip() == "[]"


def test_faults_in_the_data_stop_the_run_with_a_list(tiny, squares, tmp_path: Path, capsys):
    content = json.loads(squares[0].read_text())
    content["annotations"][0]["bbox"] = [1, 1, 0, 5]
    content["annotations"][2]["category_id"] = 99
    bad = Path(shutil.copytree(squares[0].parent, tmp_path / "bad")) / "annotations.json"
    bad.write_text(json.dumps(content))
    words = ("--train", bad, "--val", squares[1], "-o", tmp_path / "run", "--no-pretrained", "--preset", "small")
    assert run("train", *words) == 1
    said = capsys.readouterr().err
    assert "annotation 1" in said
    assert "annotation 3" in said
    assert "99" in said
    assert "--skip-bad" in said
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_resume_needs_no_more_than_the_folder(run_folder: Path, capsys):
    """config.yaml in the run's folder holds the rest."""
    assert run("train", "--resume", "-o", run_folder, "--epochs", 3) == 0
    assert "epoch 3/3" in capsys.readouterr().out
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["epochs"] == 3


def test_train_evaluate_predict(tiny, squares, tmp_path: Path, capsys):
    """The real path through the command line: the model's own evaluation and that of its results file agree."""
    run_folder = tiny["output"]
    plain = {k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for k, v in tiny.items()}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(plain))
    assert run("train", "--config", tmp_path / "c.yaml", "--epochs", 1) == 0
    best = run_folder / "best.ckpt"
    results = tmp_path / "r.json"
    assert run("evaluate", best, "--data", squares[1], "--json", tmp_path / "a.json", "--results", results) == 0
    assert run("evaluate", results, "--data", squares[1], "--json", tmp_path / "b.json") == 0
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert first == second
    keys = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "per_class"}
    assert set(first) == keys
    assert json.loads((run_folder / "evaluation.json").read_text())["AP"] == pytest.approx(first["AP"])
    pictures = squares[1].parent / "images"
    for kind, name in (("coco", "detections.json"), ("csv", "detections.csv")):
        assert run("predict", best, pictures, "-o", tmp_path / kind, "--format", kind, "--threshold", 0.01) == 0
        assert (tmp_path / kind / name).stat().st_size > 0
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    capsys.readouterr()
    assert run("predict", best, tmp_path / "broken.jpg", pictures / "0.png", "-o", tmp_path / "third") == 1
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.out + captured.err
