"""The flight recorder, with faults planted where they can happen: an image, a weight, an output, a gradient."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.cli import main
from retinanet.data import Batch
from retinanet.model import RetinaNet
from retinanet.train import NonFiniteError, fit, replay
from retinanet.train.data_module import DetectionDataModule
from retinanet.train.detection_module import DetectionModule
from retinanet.train.flight_record import read_record
from retinanet.train.flight_recorder import FlightRecorder
from tests.train.runs import Options, table


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change the batch, or the network, before a training step: at_step(2, change)."""
    original = DetectionDataModule.transfer_batch_to_device

    def plant(step: int, change: Callable[[RetinaNet, Batch], Batch | None], *, every: bool = False) -> None:
        def changed(self: DetectionDataModule, batch: Batch, *rest: Any) -> Batch:
            now = self.trainer.global_step
            if self.trainer.training and (now == step or (every and now > step)):
                batch = change(self.trainer.lightning_module.model, batch) or batch
            return original(self, batch, *rest)

        monkeypatch.setattr(DetectionDataModule, "transfer_batch_to_device", changed)

    return plant


def spoil_image(_: RetinaNet, batch: Batch) -> Batch:
    pixels = batch.images_N3HW.clone()
    pixels[1, 0, 3, 5] = torch.nan
    return replace(batch, images_N3HW=pixels)


FAR_TOO_FAST = {"lr": 1e30, "clip_gradients": 0, "warmup_steps": 0, "optimizer": "sgd"}


@pytest.fixture
def plain(tiny: Options) -> Options:
    return {**tiny, "epochs": 3, "ema": 0}


def stopped(options: Options, message: str) -> Path:
    with pytest.raises(NonFiniteError, match=message):
        fit(**options)
    return options["output"] / "nonfinite.pt"


@pytest.mark.slow
def test_a_weight_that_a_step_destroyed(plain: Options):
    """The usual case: a learning rate far too high. Nothing is planted."""
    path = stopped({**plain, **FAR_TOO_FAST}, r"in all 4 images")
    record = read_record(path)
    assert record["step"] >= 1
    said, same = replay(path)
    assert same
    assert said == record["said"]


@pytest.mark.parametrize("precision", ["32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_an_output_is_named_with_its_module_and_replayed(plain: Options, at_step, capsys, precision: str):
    def spoil(model: RetinaNet, _: Batch) -> None:
        with torch.no_grad():
            model.fpn.lateral[1].weight.fill_(3e38)

    at_step(2, spoil)
    path = stopped(
        {**plain, "precision": precision}, r"the output of fpn\.lateral\.1 \([\d,]+ of [\d,]+ values\), in all 4"
    )
    content = torch.load(path, weights_only=True)
    assert len(content["files"]) == len(content["boxes"]) == len(content["images_N3HW"]) == 4
    assert content["config"]["fpn_width"] == 16
    assert not list(path.parent.glob("*.partial"))
    with pytest.raises(SystemExit) as stop:
        main(["replay", str(path)])
    assert stop.value.code == 0
    recorded, replayed = re.findall(r"^(?:recorded|replayed): (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert recorded == replayed
    assert "fpn.lateral.1" in replayed


def test_the_image_is_named(plain: Options, at_step):
    at_step(1, spoil_image)
    path = stopped({**plain, "batch_size": 3}, r"the input: pixels, in .*\.png\.")
    record = read_record(path)
    assert record["files"][1] in record["said"]
    assert record["files"][0] not in record["said"]
    assert replay(path) == (record["said"], True)


def test_a_gradient_alone(plain: Options, at_step):
    """Outputs and loss are finite; the way back is not: an enormous weight behind a tiny one."""

    def spoil(model: RetinaNet, _: Batch) -> None:
        with torch.no_grad():
            output = model.box_head.output
            output.weight.fill_(0)
            output.weight[:, 0, 1, 1] = 3e38
            model.box_head.hidden[0].weight.fill_(0)
            model.box_head.hidden[1].bias.fill_(1e-39)

    at_step(1, spoil)
    path = stopped({**plain, "box_loss_weight": 1e6}, r"the gradient")
    record = read_record(path)
    assert record["kind"] == "gradient"
    assert record["module"].startswith("box_head")
    assert replay(path) == (record["said"], True)


@pytest.mark.slow
def test_skip_leaves_the_step_out(plain: Options, at_step, monkeypatch, capsys):
    """The weights after a skipped step are those before it, and the run ends finite."""
    seen = {}
    original = FlightRecorder.on_train_batch_end

    def look(self, trainer, pl_module, outputs, batch, batch_idx):
        original(self, trainer, pl_module, outputs, batch, batch_idx)
        seen[trainer.global_step] = {k: v.clone() for k, v in pl_module.model.state_dict().items()}

    monkeypatch.setattr(FlightRecorder, "on_train_batch_end", look)
    at_step(1, spoil_image)
    fit(**{**plain, "epochs": 1, "on_nonfinite": "skip", "freeze_batchnorm": False})
    for name, value in seen[1].items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, seen[2][name]), name
    assert any(not torch.equal(value, seen[3][name]) for name, value in seen[2].items())
    assert all(torch.isfinite(value).all() for value in seen[3].values())
    assert "skipped step 1 of epoch 0" in capsys.readouterr().out
    assert [row["step"] for row in table(plain["output"] / "metrics.csv") if row["loss"]] == ["1", "2", "3"]
    assert read_record(plain["output"] / "nonfinite.pt")["step"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("limits", "steps"), [({"max_skipped_steps": 2}, 3), ({"max_skipped_steps": 0}, 1)])
def test_skip_has_a_bound(plain: Options, at_step, capsys, limits: Options, steps: int):
    at_step(1, spoil_image, every=True)
    stopped({**plain, "on_nonfinite": "skip", **limits}, rf"{steps} steps in a row and {steps} in all")
    assert capsys.readouterr().out.count("skipped step") == steps - 1


@pytest.mark.slow
def test_a_sum_that_overflows_is_no_fault(plain: Options, monkeypatch):
    """The check adds up outputs and squares; that these sums overflow says nothing of the run."""
    original = DetectionModule.training_step

    def step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        return loss + 1e25 * self.model.box_head.output.bias.sum()

    monkeypatch.setattr(DetectionModule, "training_step", step)
    fit(**{**plain, "epochs": 1, "clip_gradients": 0, "optimizer": "adamw"})


def test_the_network_is_the_one_that_trained(plain: Options):
    """What is frozen stays frozen in the replay: gradients of it do not exist."""
    path = stopped({**plain, **FAR_TOO_FAST, "freeze": "backbone"}, "not finite at")
    assert replay(path)[1]
