"""Flight recorder: NaN and infinite values planted in an image, a weight, an output and a gradient."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.cli import main
from retinanet.data import Batch
from retinanet.losses import DetectionLoss
from retinanet.model import RetinaNet
from retinanet.train import NonFiniteError, fit, optimisation, replay
from retinanet.train.data_module import DetectionDataModule
from retinanet.train.detection_module import DetectionModule
from retinanet.train.flight_record import read_record
from retinanet.train.flight_recorder import FlightRecorder
from tests.train.runs import Options, read_rows


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that changes the batch or the network before a training step: at_step(2, change)."""
    original = DetectionDataModule.transfer_batch_to_device

    def plant(step: int, change: Callable[[RetinaNet, Batch], Batch | None], *, every: bool = False) -> None:
        def changed(self: DetectionDataModule, batch: Batch, *rest: Any) -> Batch:
            moved = original(self, batch, *rest)
            now = self.trainer.global_step
            if self.trainer.training and (now == step or (every and now > step)):
                return change(self.trainer.lightning_module.model, moved) or moved
            return moved

        monkeypatch.setattr(DetectionDataModule, "transfer_batch_to_device", changed)

    return plant


def set_pixel_to_nan(_: RetinaNet, batch: Batch) -> Batch:
    pixels = batch.images_N3HW.clone()
    pixels[1, 0, 3, 5] = torch.nan
    return replace(batch, images_N3HW=pixels)


TOO_HIGH_LEARNING_RATE = {"lr": 1e30, "clip_gradients": 0, "warmup_steps": 0, "optimizer": "sgd"}


@pytest.fixture
def plain(tiny: Options) -> Options:
    return {**tiny, "epochs": 3, "ema": 0}


def train_until_stopped(options: Options, message: str) -> Path:
    """Train, check the error message, and return the path of the flight record."""
    with pytest.raises(NonFiniteError, match=message):
        fit(**options)
    return options["output"] / "nonfinite.pt"


@pytest.mark.slow
def test_a_weight_destroyed_by_a_high_learning_rate_is_found(plain: Options):
    """The most common cause of NaN: nothing is planted, the learning rate is far too high."""
    path = train_until_stopped({**plain, **TOO_HIGH_LEARNING_RATE}, r"in all 4 images")
    record = read_record(path)
    assert record["step"] >= 1
    sentence, is_same = replay(path)
    assert is_same
    assert sentence == record["said"]


@pytest.mark.parametrize("precision", ["32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_an_infinite_output_is_reported_with_its_module_and_replayed(plain: Options, at_step, capsys, precision: str):
    def set_weights(model: RetinaNet, _: Batch) -> None:
        with torch.no_grad():
            model.fpn.lateral[1].weight.fill_(3e38)

    at_step(2, set_weights)
    path = train_until_stopped(
        {**plain, "precision": precision}, r"the output of fpn\.lateral\.1 \([\d,]+ of [\d,]+ values\), in all 4"
    )
    content = torch.load(path, weights_only=True)
    assert len(content["files"]) == len(content["boxes"]) == len(content["images_N3HW"]) == 4
    assert content["config"]["fpn_width"] == 16
    assert not list(path.parent.glob("*.partial"))
    with pytest.raises(SystemExit) as exit_status:
        main(["replay", str(path)])
    assert exit_status.value.code == 0
    recorded, replayed = re.findall(r"^(?:recorded|replayed): (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert recorded == replayed
    assert "fpn.lateral.1" in replayed


def test_an_image_with_a_nan_pixel_is_named(plain: Options, at_step):
    at_step(1, set_pixel_to_nan)
    path = train_until_stopped({**plain, "batch_size": 3}, r"the input pixels, in .*\.png\.")
    record = read_record(path)
    assert record["files"][1] in record["said"]
    assert record["files"][0] not in record["said"]
    assert replay(path) == (record["said"], True)


def test_an_infinite_gradient_with_finite_outputs_and_loss_is_found(plain: Options, at_step):
    """A huge weight after a layer with tiny outputs: the loss is finite, but the gradient overflows."""

    def set_weights(model: RetinaNet, _: Batch) -> None:
        with torch.no_grad():
            output = model.box_head.output
            output.weight.fill_(0)
            output.weight[:, 0, 1, 1] = 3e38
            model.box_head.hidden[0].weight.fill_(0)
            model.box_head.hidden[1].bias.fill_(1e-39)

    at_step(1, set_weights)
    path = train_until_stopped({**plain, "box_loss_weight": 1e6}, r"the gradient")
    record = read_record(path)
    assert record["kind"] == "gradient"
    assert record["module"].startswith("box_head")
    assert replay(path) == (record["said"], True)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["focal", "eql_v2", "ghm_c"])
def test_a_skipped_step_does_not_change_the_weights(plain: Options, at_step, monkeypatch, capsys, loss: str):
    """Weights and state of the loss before and after a skipped step are equal, and all weights remain finite."""
    weights = {}
    original = FlightRecorder.on_train_batch_end

    def store_weights(self, trainer, pl_module, outputs, batch, batch_idx):
        original(self, trainer, pl_module, outputs, batch, batch_idx)
        weights[trainer.global_step] = {
            k: v.clone() for k, v in {**pl_module.model.state_dict(), **pl_module.loss.state_dict()}.items()
        }

    monkeypatch.setattr(FlightRecorder, "on_train_batch_end", store_weights)
    at_step(1, set_pixel_to_nan)
    fit(**{**plain, "epochs": 1, "on_nonfinite": "skip", "freeze_batchnorm": False, "loss": loss})
    for name, value in weights[1].items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, weights[2][name]), name
    assert any(not torch.equal(value, weights[3][name]) for name, value in weights[2].items())
    assert all(torch.isfinite(value).all() for value in weights[3].values())
    assert "skipped step 1 of epoch 0" in capsys.readouterr().out
    assert [row["step"] for row in read_rows(plain["output"] / "metrics.csv") if row["loss"]] == ["1", "2", "3"]
    assert read_record(plain["output"] / "nonfinite.pt")["step"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("limits", "steps"), [({"max_skipped_steps": 2}, 3), ({"max_skipped_steps": 0}, 1)])
def test_too_many_skipped_steps_stop_the_run(plain: Options, at_step, capsys, limits: Options, steps: int):
    at_step(1, set_pixel_to_nan, every=True)
    train_until_stopped({**plain, "on_nonfinite": "skip", **limits}, rf"^{steps} consecutive steps .*, {steps} in all")
    assert capsys.readouterr().out.count("skipped step") == steps - 1


@pytest.mark.slow
def test_overflow_in_the_sums_of_the_check_is_no_error(plain: Options, monkeypatch):
    """The check sums outputs and squared gradients. The sums may overflow while every value is finite."""
    original = DetectionModule.training_step

    def step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        return loss + 1e25 * self.model.box_head.output.bias.sum()

    monkeypatch.setattr(DetectionModule, "training_step", step)
    fit(**{**plain, "epochs": 1, "clip_gradients": 0, "optimizer": "adamw"})


def test_a_replay_freezes_the_same_parts(plain: Options):
    path = train_until_stopped({**plain, **TOO_HIGH_LEARNING_RATE, "freeze": "backbone"}, "is NaN or infinite at step")
    assert replay(path)[1]


def test_weights_that_the_last_step_destroys_are_not_saved(plain: Options):
    """No later step would find them."""
    options = {**plain, **TOO_HIGH_LEARNING_RATE, "lr": 1e38, "max_steps": 1}
    with pytest.raises(
        NonFiniteError, match=r"the weight .* is NaN or infinite after step 0 of epoch 0\. No checkpoint"
    ):
        fit(**options)
    assert not list(options["output"].glob("*.ckpt"))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the fused optimiser of a GPU on the CPU. `FlightRecorder` then reads its checks only when they are due."""
    monkeypatch.setattr(optimisation, "_has_fused_kernel", lambda parameters: True)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [
        pytest.param("sgd", "focal", marks=pytest.mark.slow),
        pytest.param("adamw", "focal", marks=pytest.mark.slow),
        ("sgd", "eql_v2"),
    ],
)
def test_a_late_reading_names_the_first_bad_step_and_keeps_its_weights(
    plain: Options, at_step, monkeypatch, optimizer: str, loss: str
):
    """A weight becomes infinite before step 1. The check is read at the end of the epoch, after step 2.

    The later steps change no weight, so the record holds the weights of step 1, its batch, and the state of the loss
    before the step.
    """
    read, states = [], []
    original = FlightRecorder._read

    def count_reads(self, trainer, pl_module):
        read.append(trainer.global_step)
        original(self, trainer, pl_module)

    monkeypatch.setattr(FlightRecorder, "_read", count_reads)
    over_parts = DetectionLoss.over_parts

    def store_state(self, parts):
        states.append(self.state_dict())
        return over_parts(self, parts)

    monkeypatch.setattr(DetectionLoss, "over_parts", store_state)
    seen = {}

    def set_weight(model: RetinaNet, batch: Batch) -> None:
        with torch.no_grad():
            model.fpn.lateral[1].weight[0, 0] = torch.inf
        weights = {name: value.detach().clone() for name, value in model.named_parameters()}
        seen.update(weights=weights, images=batch.images_N3HW.clone())

    at_step(1, set_weight)
    options = {**plain, "log_every": 100, "optimizer": optimizer, "clip_gradients": 1.0, "loss": loss}
    path = train_until_stopped(options, r"at step 1 of epoch 0\. Batch: .* the weight fpn\.lateral\.1\.weight")
    assert read == [3]  # three steps in an epoch
    record = read_record(path)
    assert record["step"] == 1
    assert torch.equal(record["images_N3HW"], seen["images"])
    assert all(torch.equal(record["weights"][name], value) for name, value in seen["weights"].items())
    assert record["loss_state"].keys() == states[1].keys() == (set() if loss == "focal" else {"earlier_2K", "step_2K"})
    assert all(torch.equal(record["loss_state"][name], value) for name, value in states[1].items())
    assert replay(path) == (record["said"], True)


@pytest.mark.slow
@pytest.mark.usefixtures("fused")
def test_a_late_reading_changes_nothing_in_a_healthy_run(plain: Options, tmp_path: Path):
    """Runs that read every step and every 100 steps end with equal weights."""
    weights = []
    for log_every in (1, 100):
        result = fit(**{**plain, "epochs": 1, "log_every": log_every, "output": tmp_path / f"every{log_every}"})
        weights.append(torch.load(result.last, weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
