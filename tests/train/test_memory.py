"""Memory of a training step: measurement, batch size `auto`, and the error when memory runs out."""

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
from retinanet.train.memory import (
    MARGIN,
    OutOfMemoryError,
    _LiveBytes,
    largest_shape,
    measure_step_memory,
    with_batch_size,
)
from tests.train.runs import Options, run

CPU = torch.device("cpu")


def load_parts(options: Options, **changes: object) -> tuple[RetinaNet, TrainConfig, object]:
    """Return the model, the config and the training data."""
    config = resolve(TrainConfig, {**options, **changes})
    return RetinaNet(num_classes=2, config=config.model), config, load(config.train)


def test_live_bytes_by_hand():
    """a and b have 4000 bytes each, their sum has 4000 bytes until it is deleted, and a view has none."""
    with _LiveBytes() as live:
        a = torch.zeros(1000)
        b = torch.zeros(1000)
        _ = a.view(10, 100)
        assert live.now == 8000
        (a + b).sum().item()
        assert live.now == 8000
        assert 12000 <= live.peak <= 12016
        del a, _
        assert live.now == 4000
        assert b.add_(1).sum() == 1000


@pytest.mark.slow
def test_the_measurement_is_reproducible_and_changes_no_state(tiny: Options):
    model, config, data = load_parts(tiny)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    first, second = (measure_step_memory(model, config, data, CPU) for _ in range(2))
    assert dataclasses.replace(first, budget=0) == dataclasses.replace(second, budget=0)
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert first.fixed >= int(MARGIN * weights) + 3 * weights, "gradients, two moments of AdamW, the average"
    larger = measure_step_memory(*load_parts(tiny, image_size=128, max_size=192), CPU)
    assert 3.5 < larger.per_image / first.per_image < 4.5, "images with twice the side have four times the pixels"


@pytest.mark.slow
def test_the_largest_shape_follows_multi_scale_and_jitter(tiny: Options):
    """Images of 96 x 64 keep their size at 64. At 80 with jitter 1.2 they are 144 x 96, padded to 160 x 96."""
    _, config, data = load_parts(tiny)
    assert largest_shape(config, data) == (64, 96)
    _, config, _ = load_parts(tiny, multi_scale=(64, 80), scale_jitter=(0.8, 1.2))
    assert largest_shape(config, data) == (96, 160)
    _, config, _ = load_parts(tiny, multi_scale=(64, 80), scale_jitter=(0.8, 1.2), augment=False)
    assert largest_shape(config, data) == (64, 96)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "records", "size", "limit"),
    [(13, 10_000, 8, "memory"), (1, 10_000, 1, "memory"), (1000, 10_000, 64, "the largest"), (1000, 70, 4, "16 steps")],
)
def test_auto_is_a_power_of_two_that_fits(
    tiny: Options, monkeypatch, caplog, images: int, records: int, size: int, limit: str
):
    model, config, data = load_parts(tiny, batch_size="auto")
    step_memory = measure_step_memory(model, config, data, CPU)
    monkeypatch.setattr(memory, "memory_budget", lambda _: step_memory.fixed + images * step_memory.per_image + 1)
    data = dataclasses.replace(data, records=tuple(data.records[i % 12] for i in range(records)))
    caplog.set_level("INFO", logger="retinanet.progress")
    assert with_batch_size(model, config, data).batch.batch_size == size
    assert limit in caplog.messages[0]
    assert "MiB" in caplog.messages[0]


def test_auto_is_an_error_without_memory_or_with_several_processes(tiny: Options, monkeypatch):
    monkeypatch.setattr(memory, "memory_budget", lambda _: 1000)
    with pytest.raises(OutOfMemoryError, match=r"a single image does not fit into memory: .*--image-size"):
        with_batch_size(*load_parts(tiny, batch_size="auto"))
    with pytest.raises(ConfigError, match="auto works with one training process"):
        with_batch_size(*load_parts(tiny, batch_size="auto", devices=2))


@pytest.mark.slow
def test_auto_is_stored_as_a_number_that_a_resume_keeps(tiny: Options, monkeypatch, capsys):
    monkeypatch.setattr(memory, "STEPS_PER_EPOCH", 3)
    options = {k: v for k, v in tiny.items() if k not in {"pretrained", "anchor_sizes", "batch_size"}}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with pytest.raises(SystemExit) as exit_status:
        main(["train", *flags, "--no-pretrained", "--batch-size", "auto", "--max-steps", "2"])
    assert exit_status.value.code == 0
    assert "batch size 4 (limited by 3 steps per epoch)" in capsys.readouterr().out
    written = yaml.safe_load((tiny["output"] / "config.yaml").read_text())
    assert written["batch_size"] == 4
    monkeypatch.setattr(memory, "STEPS_PER_EPOCH", 1)
    fit(**{**options, "batch_size": "auto", "max_steps": 3, "resume": True})
    assert yaml.safe_load((tiny["output"] / "config.yaml").read_text())["batch_size"] == 4
    with pytest.raises(SystemExit) as exit_status:
        main(["train", *flags, "--batch-size", "many"])
    assert exit_status.value.code == 2
    assert "--batch-size" in capsys.readouterr().err


@pytest.mark.slow
def test_out_of_memory_is_reported_with_a_batch_size_that_fits(tiny: Options, monkeypatch):
    model, config, data = load_parts(tiny)
    step_memory = measure_step_memory(model, config, data, CPU)
    monkeypatch.setattr(memory, "memory_budget", lambda _: step_memory.fixed + 2 * step_memory.per_image + 1)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(DetectionModule, "training_step", fail)
    expected = (
        r"out of memory on cpu with --batch-size 4: a training step needs \d+ MiB per image of 96x64 pixels, .*"
        r"--batch-size 2 fits; --accumulate 2 keeps the number of images per optimiser step. Or lower --image-size"
    )
    with pytest.raises(OutOfMemoryError, match=expected):
        fit(**tiny)


@pytest.mark.slow
def test_out_of_memory_names_an_image_with_very_many_objects(tiny: Options, tmp_path: Path, monkeypatch):
    content = json.loads(Path(tiny["train"]).read_text())
    annotation = content["annotations"][0]
    content["annotations"] += [{**annotation, "id": 1000 + i} for i in range(1200)]
    for image in content["images"]:
        image["file_name"] = str(Path(tiny["train"]).parent / "images" / image["file_name"])
    crowded = tmp_path / "crowded.json"
    crowded.write_text(json.dumps(content))

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(DetectionModule, "training_step", fail)
    with pytest.raises(OutOfMemoryError, match=r"has 1,20\d objects: cut such images into tiles with --tile"):
        fit(**{**tiny, "train": crowded})


class _LimitAddressSpace:
    """Limit the address space to the memory mapped at the first training step plus `extra` bytes."""

    def __init__(self, extra: int) -> None:
        self.extra = extra

    def __call__(self) -> None:
        original = DetectionModule.training_step

        def step(module: DetectionModule, *args: object) -> object:
            mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + self.extra, resource.RLIM_INFINITY))
            return original(module, *args)

        DetectionModule.training_step = step  # type: ignore[method-assign]


@pytest.mark.slow
def test_out_of_memory_on_the_cpu_with_a_real_limit(tiny: Options, tmp_path: Path):
    options = {**tiny, "image_size": 512, "max_size": 768, "batch_size": 12, "ema": 0}
    assert run(options, tmp_path / "log", _LimitAddressSpace(200 * 2**20)) == 2, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert "error: out of memory on cpu with --batch-size 12" in log
    assert "--image-size" in log
    assert "Traceback" not in log
