"""Flags from configs."""

import dataclasses
from pathlib import Path

import pytest

from retinanet.commands.options import flags_of, from_flags
from retinanet.config import TrainConfig, options_of, resolve, to_dict
from retinanet.errors import ConfigError
from tests.commands.made import run

DATA = ("--train", "t.json", "--val", "v.json", "-o", "out")


def test_flags_and_python_arguments_give_the_same_config(seen):
    assert run("train", *DATA, "--preset", "small", "--gamma", 1.5, "--scale-jitter", 0.5, 2) == 0
    options = {"train": "t.json", "val": "v.json", "output": "out", "preset": "small", "gamma": 1.5}
    assert to_dict(seen[0]) == to_dict(resolve(TrainConfig, {**options, "scale_jitter": [0.5, 2]}))


@pytest.mark.parametrize(("text", "value"), [("auto", 0.0), ("0.05", 0.05)])
def test_a_flag_takes_a_word_or_a_number(seen, text, value):
    assert run("train", *DATA, "--repeat-threshold", text) == 0
    assert seen[0].sampling.repeat_threshold == value


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
        (("--resume", "--overwrite"), "", "resume and overwrite exclude each other"),
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


def test_each_option_of_a_config_and_of_its_sections_is_one_field():
    flags = flags_of(TrainConfig)
    fields = {field.name: field for field in dataclasses.fields(flags)}
    assert set(fields) == set(options_of(TrainConfig))
    assert list(fields)[:3] == ["train", "val", "output"], "required options come first"
    assert fields["gamma"].default == options_of(TrainConfig)["gamma"].default
    assert fields["train"].default is dataclasses.MISSING
    assert flags_of(TrainConfig) is flags


def test_flags_become_the_config_and_other_arguments_stay():
    flags = flags_of(TrainConfig)(train=Path("t.json"), val=Path("v.json"), output=Path("out"), gamma=1.5)
    arguments = {"flags": flags, "other": 3}
    from_flags(arguments)
    assert isinstance(arguments["flags"], TrainConfig)
    assert arguments["flags"].loss.gamma == 1.5
    assert arguments["other"] == 3
    wrong = {"flags": flags_of(TrainConfig)(train=Path("t.json"), val=Path("v.json"), output=Path("out"), gamma=-1.0)}
    with pytest.raises(ConfigError, match="gamma"):
        from_flags(wrong)
