"""Training that starts from a trained model: kept, new and frozen weights."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from retinanet.checkpoint.loaded_model import KEY
from retinanet.cli import main
from retinanet.commands.terminal import show_progress
from retinanet.config import IMAGENET_MEAN, TrainConfig, resolve
from retinanet.errors import ConfigError
from retinanet.model import RetinaNet
from retinanet.train import CheckpointError, fit, load_checkpoint
from retinanet.train.initial_model import build_model, random_parts, transfer_class_rows, with_start_model_options


@pytest.fixture
def first(trained_run):
    return trained_run / "best.ckpt"


@pytest.fixture
def other_classes(squares, tmp_path):
    """Return the data of `squares` with other classes: square is renamed to block, bar remains, ring is added."""
    paths = []
    for source in squares:
        content = json.loads(source.read_text())
        content["categories"] = [{"id": 3, "name": "block"}, {"id": 17, "name": "bar"}, {"id": 1, "name": "ring"}]
        path = tmp_path / f"{source.parent.name}.json"
        path.write_text(json.dumps(content))
        paths.append(path)
    return {"train": paths[0], "val": paths[1], "images": squares[0].parent / "images",
            "val_images": squares[1].parent / "images"}  # fmt: skip


def test_rows_of_kept_classes_are_transferred():
    """2 anchors, old classes a and b, new classes b and c: b keeps its rows at the first position, c has new rows."""
    old = torch.tensor([10.0, 11.0, 20.0, 21.0])
    fresh = torch.tensor([-1.0, -2.0, -3.0, -4.0])
    assert transfer_class_rows(old, fresh, ["a", "b"], ["b", "c"]).tolist() == [11.0, -2.0, 21.0, -4.0]
    weight = torch.arange(4 * 3.0).view(4, 3)
    result = transfer_class_rows(weight, torch.zeros(2, 3), ["a", "b"], ["b"])
    assert torch.equal(result, weight[[1, 3]])


def test_the_scores_of_a_kept_class_do_not_change():
    torch.manual_seed(0)
    options = {"backbone": "tf_efficientnet_lite0", "fpn_width": 16, "head_width": 16, "head_depth": 1}
    old, new = RetinaNet(num_classes=2, **options).eval(), RetinaNet(num_classes=3, **options).eval()
    state = old.state_dict()
    for name in ("class_head.output.weight", "class_head.output.bias"):
        state[name] = transfer_class_rows(state[name], new.state_dict()[name], ["a", "b"], ["x", "b", "y"])
    new.load_state_dict(state)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, after = old(images), new(images)
    torch.testing.assert_close(after.logits_NAK[:, :, 1], before.logits_NAK[:, :, 1])
    torch.testing.assert_close(after.deltas_NA4, before.deltas_NA4)
    assert abs(after.logits_NAK[:, :, 0].mean().sigmoid().item() - 0.01) < 0.01, "new classes start from the prior"


@pytest.mark.slow
def test_training_from_a_model_uses_its_network_and_reports_the_kept_classes(
    first, tiny, other_classes, tmp_path, capsys
):
    show_progress()
    options = {"output": tmp_path / "second", "device": "cpu", "batch_size": 4, "workers": 0, "log_every": 1}
    result = fit(**other_classes, **options, start_from=first, epochs=1, max_steps=1, lr=1e-9)
    output = capsys.readouterr().out
    assert "classes kept: 1 (bar); new: 2 (ring, block), initialised with the prior; dropped: 1 (square)" in output
    assert "the model was trained with --preset small" in output
    assert "uses the optimiser options of --preset default" in output
    before, after = load_checkpoint(first), load_checkpoint(result.last)
    assert after.classes == ("ring", "block", "bar")
    assert after.train_config["anchor_sizes"] == before.train_config["anchor_sizes"]
    assert after.image_config == before.image_config
    rows = before.model.class_head.output.weight.view(9, 2, -1)[:, 1]
    kept = after.model.class_head.output.weight.view(9, 3, -1)[:, 2]
    torch.testing.assert_close(kept, rows, atol=1e-6, rtol=0)
    assert f"start_from: {first}" in (tmp_path / "second" / "config.yaml").read_text()


@pytest.mark.slow
def test_the_command_freezes_parts_of_the_model(first, other_classes, tmp_path):
    output = tmp_path / "frozen"
    words = [
        "train",
        "--from",
        str(first),
        "--freeze",
        "backbone+fpn",
        "-o",
        str(output),
        "--epochs",
        "1",
        "--workers",
        "0",
    ]
    words += ["--lr", "0.1", "--max-steps", "2", "--device", "cpu"]
    for name, value in other_classes.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    with pytest.raises(SystemExit) as exit_status:
        main(words)
    assert exit_status.value.code == 0
    before, after = load_checkpoint(first).model, load_checkpoint(output / "last.ckpt").model
    for name in ("backbone", "fpn"):
        for (key, old), new in zip(before.get_submodule(name).state_dict().items(),
                                   after.get_submodule(name).state_dict().values(), strict=True):  # fmt: skip
            assert torch.equal(old, new), f"{name}.{key} has changed"
    assert not torch.equal(before.box_head.output.weight, after.box_head.output.weight)


@pytest.fixture
def ce_model(first, tmp_path):
    """Return a model that was trained with cross-entropy and images of another size than the default."""
    content = torch.load(first, weights_only=True)
    content[KEY]["config"] |= {"loss": "ce", "image_size": 96, "max_size": 128, "gamma": 3.0}
    path = tmp_path / "ce.ckpt"
    torch.save(content, path)
    return path


def test_an_option_given_with_the_value_of_its_default_is_not_taken_from_the_model(ce_model, first):
    def start(**options):
        paths = {"train": "t", "val": "v", "output": "o", "start_from": ce_model}
        return with_start_model_options(resolve(TrainConfig, {**paths, **options}))

    config = start()
    assert (config.loss.loss, config.loss.gamma, config.image.image_size) == ("ce", 3.0, 96)
    config = start(loss="focal", image_size=800, max_size=1333)
    assert (config.loss.loss, config.loss.gamma, config.image.image_size) == ("focal", 3.0, 800)
    config = start(preset="small", max_size=512)
    assert (config.loss.loss, config.image.image_size, config.image.max_size) == ("ce", 96, 512)
    with pytest.raises(ConfigError, match=r"fpn_width is 256, but the model in .* has 16"):
        start(fpn_width=256)


@pytest.mark.parametrize("where", ["flags", "yaml"])
def test_the_command_line_and_yaml_give_options_with_the_value_of_the_default(where, ce_model, tmp_path, monkeypatch):
    configs = []
    monkeypatch.setattr("retinanet.train.fit", lambda config, **_: configs.append(config) or sys.exit())
    words = ["train", "--train", "t", "--val", "v", "-o", "o", "--from", str(ce_model), "--preset", "small"]
    if where == "flags":
        words += ["--loss", "focal", "--image-size", "512", "--max-size", "512"]
    else:
        (tmp_path / "o.yaml").write_text("loss: focal\nimage-size: 512\nmax_size: 512\n")
        words += ["--config", str(tmp_path / "o.yaml")]
    with pytest.raises(SystemExit):
        main(words)
    config = with_start_model_options(configs[0])
    assert (config.loss.loss, config.loss.gamma, config.image.image_size) == ("focal", 3.0, 512)


def test_a_given_normalisation_is_kept(monkeypatch):
    """The mean of the backbone replaces only a mean that was not given, also if the given mean is the default."""
    info = SimpleNamespace(source="a file", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    monkeypatch.setattr("retinanet.train.initial_model.load_pretrained", lambda *_, **__: info)
    options = {"backbone": "tf_efficientnet_lite0", "fpn_width": 16, "head_width": 16, "head_depth": 1}
    options |= {"train": "t", "val": "v", "output": "o", "image_mean": IMAGENET_MEAN}
    _, config = build_model(resolve(TrainConfig, options), ["a"])
    assert (config.image.image_mean, config.image.image_std) == (IMAGENET_MEAN, info.std)


def test_options_that_contradict_the_model_are_refused(first, tiny, tmp_path):
    options = {"train": tiny["train"], "val": tiny["val"], "output": tmp_path / "x", "start_from": first}
    with pytest.raises(ConfigError, match=r"head_width is 32, but the model in .* has 16"):
        fit(**options, head_width=32)
    with pytest.raises(ConfigError, match="anchors auto cannot be combined with --from"):
        fit(**options, anchors="auto")
    with pytest.raises(ConfigError, match="freeze must be one of none, backbone"):
        fit(**options, freeze="fpn")
    with pytest.raises(CheckpointError, match="gone.ckpt does not exist"):
        fit(**{**options, "start_from": tmp_path / "gone.ckpt"})


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"freeze": "backbone"}, ()),
        ({"freeze": "backbone+fpn"}, ("fpn",)),
        ({"freeze": "backbone+fpn", "pretrained": False}, ("backbone", "fpn")),
        ({"freeze": "backbone+fpn", "start_from": "m.ckpt"}, ()),
        ({"pretrained": False}, ()),
    ],
)
def test_frozen_parts_with_random_weights(options, parts):
    config = resolve(TrainConfig, {"train": "t", "val": "v", "output": "o", **options})
    assert random_parts(config) == parts
