"""What a step needs is measured right and alike each time; out of memory is explained; `auto` becomes a number."""

import dataclasses
import json
import resource
from pathlib import Path

import pytest
import torch
import yaml

from retinanet.cli import main
from retinanet.config import TrainConfig, resolve
from retinanet.data import load
from retinanet.errors import ConfigError
from retinanet.model import RetinaNet
from retinanet.train import fit, memory
from retinanet.train.detection_module import DetectionModule
from retinanet.train.memory import MARGIN, OutOfMemoryError, _LiveBytes, largest_shape, measure, with_batch_size
from tests.train.runs import Options, run

CPU = torch.device("cpu")


def parts(options: Options, **changes: object) -> tuple[RetinaNet, TrainConfig, object]:
    config = resolve(TrainConfig, {**options, **changes})
    return RetinaNet(num_classes=2, config=config.model), config, load(config.train)


def test_live_bytes_by_hand():
    """a and b live; the sum is dropped: 4000 + 4000 + 4000 at most, 8000 at the end; a view costs nothing."""
    with _LiveBytes() as live:
        a = torch.zeros(1000)
        b = torch.zeros(1000)
        _ = a.view(10, 100)
        assert live.now == 8000
        (a + b).sum().item()
        assert live.now == 8000
        assert 12000 <= live.most <= 12016
        del a, _
        assert live.now == 4000
        assert b.add_(1).sum() == 1000


@pytest.mark.slow
def test_a_step_is_measured_alike_and_leaves_no_trace(tiny: Options):
    model, config, data = parts(tiny)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    first, second = (measure(model, config, data, CPU) for _ in range(2))
    assert dataclasses.replace(first, budget=0) == dataclasses.replace(second, budget=0)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert first.fixed >= int(MARGIN * weights) + 3 * weights, "gradients, two moments of AdamW, the average"
    larger = measure(*parts(tiny, image_size=128, max_size=192), CPU)
    assert 3.5 < larger.per_image / first.per_image < 4.5, "twice the side, four times the pixels"


def test_the_largest_batch(tiny: Options):
    """Images of 96x64: at 64 they stay, at 80 with 1.2 they are 96 high and 144 wide, padded to 160."""
    _, config, data = parts(tiny)
    assert largest_shape(config, data) == (64, 96)
    _, config, _ = parts(tiny, multi_scale=(64, 80), scale_jitter=(0.8, 1.2))
    assert largest_shape(config, data) == (96, 160)
    _, config, _ = parts(tiny, multi_scale=(64, 80), scale_jitter=(0.8, 1.2), augment=False)
    assert largest_shape(config, data) == (64, 96)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "records", "size", "why"),
    [(13, 10_000, 8, "memory"), (1, 10_000, 1, "memory"), (1000, 10_000, 64, "the most"), (1000, 70, 4, "16 steps")],
)
def test_auto_is_a_power_of_two_that_fits(
    tiny: Options, monkeypatch, caplog, images: int, records: int, size: int, why: str
):
    model, config, data = parts(tiny, batch_size="auto")
    needs = measure(model, config, data, CPU)
    monkeypatch.setattr(memory, "budget", lambda _: needs.fixed + images * needs.per_image + 1)
    data = dataclasses.replace(data, records=tuple(data.records[i % 12] for i in range(records)))
    caplog.set_level("INFO", logger="retinanet.progress")
    assert with_batch_size(model, config, data).batch.batch_size == size
    assert why in caplog.messages[0]
    assert "MiB" in caplog.messages[0]


def test_auto_that_fits_nothing(tiny: Options, monkeypatch):
    monkeypatch.setattr(memory, "budget", lambda _: 1000)
    with pytest.raises(OutOfMemoryError, match=r"not even one image fits: .*--image-size"):
        with_batch_size(*parts(tiny, batch_size="auto"))
    with pytest.raises(ConfigError, match="several must agree"):
        with_batch_size(*parts(tiny, batch_size="auto", devices=2))


@pytest.mark.slow
def test_auto_is_written_as_a_number_and_kept(tiny: Options, monkeypatch, capsys):
    monkeypatch.setattr(memory, "STEPS_AN_EPOCH", 3)
    options = {k: v for k, v in tiny.items() if k not in {"pretrained", "anchor_sizes", "batch_size"}}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with pytest.raises(SystemExit) as stop:
        main(["train", *flags, "--no-pretrained", "--batch-size", "auto", "--max-steps", "2"])
    assert stop.value.code == 0
    assert "batch size 4 (bounded by 3 steps an epoch)" in capsys.readouterr().out
    written = yaml.safe_load((tiny["output"] / "config.yaml").read_text())
    assert written["batch_size"] == 4
    monkeypatch.setattr(memory, "STEPS_AN_EPOCH", 1)
    fit(**{**tiny, "batch_size": "auto", "max_steps": 3, "resume": True})
    assert yaml.safe_load((tiny["output"] / "config.yaml").read_text())["batch_size"] == 4
    with pytest.raises(SystemExit) as stop:
        main(["train", *flags, "--batch-size", "many"])
    assert stop.value.code == 2
    assert "--batch-size" in capsys.readouterr().err


@pytest.mark.slow
def test_running_out_is_explained_by_what_a_image_takes(tiny: Options, monkeypatch):
    model, config, data = parts(tiny)
    needs = measure(model, config, data, CPU)
    monkeypatch.setattr(memory, "budget", lambda _: needs.fixed + 2 * needs.per_image + 1)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(DetectionModule, "training_step", fail)
    expected = (
        r"out of memory on cpu, with batches of 4: an image of 96x64 pixels takes \d+ MiB of a step, .*"
        r"--batch-size 2 fits, and --accumulate 2 keeps the images of a step; or lower --image-size"
    )
    with pytest.raises(OutOfMemoryError, match=expected):
        fit(**tiny)


@pytest.mark.slow
def test_crowded_images_are_named(tiny: Options, tmp_path: Path, monkeypatch):
    content = json.loads(Path(tiny["train"]).read_text())
    one = content["annotations"][0]
    content["annotations"] += [{**one, "id": 1000 + i} for i in range(1200)]
    for image in content["images"]:
        image["file_name"] = str(Path(tiny["train"]).parent / "images" / image["file_name"])
    crowded = tmp_path / "crowded.json"
    crowded.write_text(json.dumps(content))

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(DetectionModule, "training_step", fail)
    with pytest.raises(OutOfMemoryError, match=r"has 1,20\d objects: --tile cuts such images"):
        fit(**{**tiny, "train": crowded})


class _AddressSpace:
    """Allow the process so many bytes beyond what it has mapped."""

    def __init__(self, more: int) -> None:
        self.more = more

    def __call__(self) -> None:
        original = DetectionModule.training_step

        def step(module: DetectionModule, *args: object) -> object:
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + self.more, resource.RLIM_INFINITY))
            return original(module, *args)

        DetectionModule.training_step = step  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_real_shortage_on_the_cpu(tiny: Options, tmp_path: Path):
    options = {**tiny, "image_size": 512, "max_size": 768, "batch_size": 12, "ema": 0}
    assert run(options, tmp_path / "log", _AddressSpace(200 * 2**20)) == 2, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert "error: out of memory on cpu, with batches of 12" in said
    assert "--image-size" in said
    assert "Traceback" not in said
