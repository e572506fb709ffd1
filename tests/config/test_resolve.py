"""Flat names and composed configs: distribution over sections, presets, saved dictionaries, and what is refused."""

import copy
import dataclasses
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import retinanet.config as module
from retinanet.config import (
    PRESETS,
    CheckConfig,
    ConvertConfig,
    ConvertWeightsConfig,
    DataConfig,
    DemoConfig,
    EvaluateConfig,
    ExportConfig,
    LossConfig,
    ModelConfig,
    PredictConfig,
    ServeConfig,
    SplitConfig,
    StudyConfig,
    TrainConfig,
    given_options,
    options_of,
    resolve,
    section_from_dict,
    to_dict,
    with_options,
)
from retinanet.errors import ConfigError

PATHS = {"train": "t.json", "val": "v.json", "output": "run"}
COMMANDS = (
    *(TrainConfig, StudyConfig, CheckConfig, EvaluateConfig, PredictConfig, ConvertConfig, ConvertWeightsConfig),
    *(SplitConfig, ExportConfig, ServeConfig, DemoConfig),
)


def train(**options: object) -> TrainConfig:
    return resolve(TrainConfig, {**PATHS, **options})


def test_named_options_reach_their_sections():
    config = train(lr=0.1, backbone="resnet18", tile=512, images="images", classes=["cat"])
    assert (config.optimiser.lr, config.model.backbone, config.tiling.tile) == (0.1, "resnet18", 512)
    assert (config.dataset.selection.images, config.dataset.selection.classes) == (Path("images"), ("cat",))
    assert (config.train, config.val, config.folder.output) == (Path("t.json"), Path("v.json"), Path("run"))
    assert config.loss == LossConfig(), "a section without given options keeps its defaults"


def test_an_option_goes_before_the_preset():
    config = train(preset="small", lr=0.5)
    assert config.optimiser.lr == 0.5
    assert config.model.backbone == PRESETS["small"]["backbone"]
    assert config.batch.batch_size == PRESETS["small"]["batch_size"]


def test_a_dictionary_and_back():
    config = train(scale_jitter=[0.5, 2], start_from="a.ckpt")
    values = to_dict(config)
    assert values["scale_jitter"] == [0.5, 2.0]
    assert values["output"] == "run"
    assert not any(isinstance(value, dict) for value in values.values()), "the file has no nesting"
    assert resolve(TrainConfig, values) == config
    assert section_from_dict(ModelConfig, values) == config.model


def test_a_config_knows_which_options_were_given():
    """Also options given with the value of the default (loss) or of the preset (image_size)."""
    config = train(preset="small", loss="focal", image_size=512)
    given = {*PATHS, "preset", "loss", "image_size"}
    assert given_options(config) == given
    assert given_options(with_options(config, lr=4e-4)) == {*given, "lr"}
    assert given_options(copy.deepcopy(config)) == given_options(pickle.loads(pickle.dumps(config))) == given  # noqa: S301
    assert config == train(preset="small"), "the record is no part of the values"
    assert given_options(section_from_dict(TrainConfig, to_dict(config), given={"loss"})) == {"loss"}
    former = train(skip_bad=False)
    assert given_options(former) == {*PATHS, "skip_invalid"}, "current names"


def test_a_config_built_from_its_sections_has_given_options_that_differ_from_the_default():
    built = dataclasses.replace(train(preset="small", lr=0.1), loss=LossConfig(loss="ce", box_loss="giou"))
    assert given_options(built) == {*PATHS, "preset", "loss", "lr", "box_loss_weight"}


def test_numbers_arrays_and_ranges_become_plain_values():
    config = train(
        lr=np.float32(0.5),
        epochs=np.int64(3),
        pretrained=np.False_,
        class_alpha=np.array([0.25, 0.5]),
        levels=range(3, 8),
    )
    assert (config.optimiser.lr, config.schedule.epochs, config.start.pretrained) == (0.5, 3, False)
    assert (config.loss.class_alpha, config.model.levels) == ((0.25, 0.5), (3, 4, 5, 6, 7))
    assert type(to_dict(config)["epochs"]) is int


def test_the_home_folder_in_paths(monkeypatch, tmp_path):
    """No shell replaces ~ in Python, in YAML and in --output=~/run. The name of an unknown user stays as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    config = train(output="~/run", start_from="~no-such-user/a.ckpt", val=Path("~") / "val.json", images="a/~b")
    assert config.folder.output == tmp_path / "run"
    assert config.val == tmp_path / "val.json"
    assert config.start.start_from == Path("~no-such-user/a.ckpt")
    assert config.dataset.selection.images == Path("a/~b")


def test_a_saved_dictionary_may_lack_options_and_hold_others():
    assert section_from_dict(LossConfig, {"gamma": 1, "backbone": "x", "gone": 3}) == LossConfig(gamma=1.0)


def test_other_values_for_some_options():
    config = with_options(train(), lr=0.2, resume=True, train=Path("other.json"), images=Path("p"))
    assert (config.optimiser.lr, config.run.resume, config.train) == (0.2, True, Path("other.json"))
    assert config.dataset.selection.images == Path("p")
    assert with_options(config, lr=0.01, resume=False, train=Path("t.json"), images=None) == train()
    with pytest.raises(ConfigError, match="unknown option 'lrr'. Did you mean 'lr'"):
        with_options(config, lrr=1)
    with pytest.raises(ConfigError, match="lr must be above 0"):
        with_options(config, lr=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "unknown option 'epoch'. Did you mean 'epochs'"),
        ({"preset": ["small"]}, r"unknown preset \['small'\]"),
        ({"class_alpha": "0.2"}, "class_alpha needs any number of values, found '0.2'"),
        ({"levels": {3, 4, 5}}, "levels needs any number of values"),
        ({"preset": "smal"}, "unknown preset 'smal'.* Did you mean 'small'"),
        ({"epochs": "many"}, "epochs must be of type int, found 'many'"),
        ({"epochs": 1.5}, "epochs must be of type int, found 1.5"),
        ({"augment": 1}, "augment must be of type bool, found 1"),
        ({"lr": True}, "lr must be of type float, found True"),
        ({"scale_jitter": [1]}, "scale_jitter needs 2 values"),
        ({"val": None}, "val must name the validation data"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        train(**options)


def test_required_options():
    with pytest.raises(ConfigError, match="missing option: train, val, output"):
        resolve(TrainConfig, {})
    with pytest.raises(ConfigError, match="missing option: data"):
        resolve(EvaluateConfig, {})
    assert resolve(CheckConfig, {}).validation.val is None
    assert resolve(StudyConfig, {"output": "o"}).validation.val is None


def test_defaults_of_a_command_differ_where_its_config_sets_them():
    assert resolve(CheckConfig, {}).folder.output == Path("runs/check")
    assert resolve(DemoConfig, {"seed": 1}).loading.workers == 1
    assert resolve(SplitConfig, {"output": "o"}).image_files.image_files == "none"
    assert options_of(DemoConfig)["workers"].default == 1
    assert options_of(TrainConfig)["workers"].default == 2
    assert options_of(TrainConfig)["val"].is_required
    assert options_of(TrainConfig)["images"].section is module.ClassesConfig


def test_a_word_stands_for_a_number():
    assert train(batch_size="auto").batch.batch_size == 0
    with pytest.raises(ConfigError, match="batch_size must be above 0"):
        resolve(PredictConfig, {"output": "o", "batch_size": "auto"})


def test_a_word_beside_numbers():
    assert resolve(PredictConfig, {"output": "o", "threshold": "tuned"}).threshold == "tuned"
    assert resolve(PredictConfig, {"output": "o", "threshold": "0.3"}).threshold == 0.3
    with pytest.raises(ConfigError, match="threshold must be of type float, found 'tune'"):
        resolve(PredictConfig, {"output": "o", "threshold": "tune"})
    with pytest.raises(ConfigError, match="threshold must be between 0 and 1, found 2"):
        resolve(PredictConfig, {"output": "o", "threshold": 2.0})


def test_each_option_is_declared_once():
    """An option with one meaning has one section; the names below have another meaning in each of their commands."""
    declared = Counter(
        name for name, _ in {(o.name, o.section) for config in COMMANDS for o in options_of(config).values()}
    )
    several = {name for name, count in declared.items() if count > 1}
    assert several == {
        "agnostic_nms",
        "classes",
        "compile",
        "data",
        "epochs",
        "format",
        "max_detections",
        "nms_threshold",
        "output",
        "precision",
        "train",
        "val",
        "workers",
    }


@pytest.mark.parametrize("config", COMMANDS)
def test_no_two_sections_of_a_command_declare_the_same_option(config):
    def names(cls):
        for field in dataclasses.fields(cls):
            yield from names(field.type) if dataclasses.is_dataclass(field.type) else (field.name,)

    assert not [name for name, count in Counter(names(config)).items() if count > 1]


def test_data_is_read_as_its_options_demand():
    config = resolve(DataConfig, {"classes": ["a,b"], "rename": ["x=a"], "format": "voc"})
    assert config.reading == {
        "keep": ("a,b",),
        "ignore": (),
        "regions": (),
        "rename": {"x": "a"},
        "allow_outside": False,
        "format": "voc",
    }
    with pytest.raises(ConfigError, match="rename must be old=new, found 'x'"):
        resolve(DataConfig, {"rename": ["x"]})
