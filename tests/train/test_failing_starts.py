"""Training runs that cannot start: exit status, one message, and a run folder that is as before."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from retinanet.cli import main
from retinanet.errors import UserError
from retinanet.train import fit, memory, output_files
from retinanet.train.detection_module import DetectionModule
from retinanet.train.output_files import CsvTable
from tests.squares import make_squares

HERE = "tests.train.failing_parts"
Options = dict[str, Any]
Prepare = Callable[[Options, Path, pytest.MonkeyPatch], None]


def options(**changes: Any) -> Prepare:
    """Return a preparation that changes options."""
    return lambda flags, tmp_path, patch: flags.update(changes)


def with_file(name: str, content: bytes, option: str, **more: Any) -> Prepare:
    """Return a preparation that writes a file and passes its path as an option."""

    def prepare(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        (tmp_path / name).write_bytes(content)
        flags.update({option: tmp_path / name, **more})

    return prepare


def with_tensors(name: str, tensors: dict[str, torch.Tensor]) -> Prepare:
    def prepare(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        save_file(tensors, tmp_path / name)
        flags.update(pretrained=True, backbone_weights=tmp_path / name)

    return prepare


def replaced(owner: Any, name: str, function: Any) -> Prepare:
    """Return a preparation that replaces a function of the program."""
    return lambda flags, tmp_path, patch: patch.setattr(owner, name, function)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def edited_data(change: Callable[[dict[str, Any]], object], *, option: str = "train") -> Prepare:
    """Return a preparation that trains or validates on a changed copy of the dataset."""

    def prepare(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        path = shutil.copytree(flags[option].parent, tmp_path / "edited") / flags[option].name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        flags[option] = path

    return prepare


def without_an_image(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    path = shutil.copytree(flags["train"].parent, tmp_path / "edited") / flags["train"].name
    (path.parent / "images" / "3.png").write_bytes(b"no image")
    flags["train"] = path


def other_images(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    flags.update(train=make_squares(tmp_path / "other", count=5, seed=9), resume=True)


def changed_checkpoint(change: Callable[[dict[str, Any]], object]) -> Prepare:
    """Return a preparation that changes last.ckpt and resumes."""

    def prepare(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        path = flags["output"] / "last.ckpt"
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)
        flags["resume"] = True

    return prepare


def damaged_checkpoint(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    path = flags["output"] / "last.ckpt"
    path.write_bytes(path.read_bytes()[:2000])
    flags["resume"] = True


def another_kind(content: dict[str, Any]) -> None:
    content.clear()
    content.update(model={"weight": torch.zeros(3)})


def add_class(content: dict[str, Any]) -> None:
    content["categories"].append({"id": 40, "name": "ring"})


def variable(name: str, value: str) -> Prepare:
    """Return a preparation that sets an environment variable."""
    return lambda flags, tmp_path, patch: patch.setenv(name, value)


def the_checkpoint_as_folder(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    flags.update(output=flags["output"] / "last.ckpt", resume=True)


def both(*prepares: Prepare) -> Prepare:
    def prepare(flags: Options, tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
        for step in prepares:
            step(flags, tmp_path, patch)

    return prepare


FULL = OSError(28, "No space left on device")
OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

NEW: dict[str, tuple[Prepare, int, str]] = {
    "device tpu": (options(device="tpu"), 2, "device 'tpu' is not available"),
    "device meta": (options(device="meta"), 2, "device 'meta' computes no numbers"),
    "device list": (options(device="0,1"), 2, "--device cuda --devices 2"),
    "memory, batch size auto": (
        both(options(batch_size="auto"), replaced(memory, "memory_budget", lambda _: 1000)),
        1,
        "a single image does not fit into memory",
    ),
    "memory, first step": (replaced(DetectionModule, "training_step", raising(OOM)), 1, "out of memory on cpu"),
    "disk, known before": (
        replaced(output_files.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 2**20)),
        1,
        "a checkpoint needs",
    ),
    "disk, full at the first file": (replaced(output_files, "write_atomically", raising(FULL)), 1, "No space left"),
    "disk, full at the first table": (replaced(CsvTable, "append", raising(FULL)), 1, "No space left"),
    "option with a bad value": (options(epochs=0), 2, "epochs must be above 0"),
    "options that contradict": (options(class_alpha=0.5), 2, "class_alpha needs one value for each of the 2 classes"),
    "option file": (with_file("o.yaml", b"epocs: 3\n", "config"), 2, "Did you mean 'epochs'"),
    "data missing": (options(train=Path("no-such.json")), 1, "no-such.json"),
    "data damaged": (with_file("t.json", b'{"images": [', "train", images=Path()), 1, "t.json"),
    "data of no known format": (with_file("t.txt", b"hello", "train"), 1, "t.txt"),
    "data with a damaged image": (without_an_image, 1, "3.png"),
    "data without objects": (edited_data(lambda c: c["annotations"].clear()), 1, "object"),
    "validation data with other classes": (
        edited_data(lambda c: c["categories"][0].update(name="ring"), option="val"),
        1,
        "ring",
    ),
    "weights missing": (options(pretrained=True, backbone_weights=Path("no.pth")), 1, "no.pth does not exist"),
    "weights damaged": (
        with_file("w.safetensors", b"hello", "backbone_weights", pretrained=True),
        1,
        "w.safetensors cannot be read",
    ),
    "weights of another network": (
        with_tensors("w.safetensors", {"conv_stem.weight": torch.zeros(3)}),
        1,
        "do not fit tf_efficientnet_lite0",
    ),
    "model missing": (options(start_from=Path("no.ckpt")), 1, "no.ckpt does not exist"),
    "model of another kind": (with_file("m.ckpt", b"hello", "start_from"), 1, "m.ckpt cannot be read"),
    "backbone unknown": (options(backbone="resnet5O"), 1, "Did you mean 'resnet50'"),
    "backbone without a module": (options(backbone="no_such_module:f"), 2, "no module 'no_such_module'"),
    "backbone with wrong maps": (options(backbone=f"{HERE}:backbone_with_wrong_maps"), 1, "expected feature maps"),
    "loss unknown": (options(loss="focla"), 2, "Did you mean 'focal'"),
    "transform without a module": (options(transform="no_such_module:f"), 2, "no module 'no_such_module'"),
    "transform whose factory fails": (options(transform=f"{HERE}:failing_factory"), 2, "no licence"),
    "callback whose factory fails": (options(callbacks=f"{HERE}:failing_factory"), 2, "no licence"),
    "callback of another type": (options(callbacks=f"{HERE}:failing_transform"), 2, "pytorch.callbacks.Callback"),
    "logger unknown": (options(logger="wanbd"), 2, "Did you mean 'wandb'"),
    "logger whose factory fails": (options(logger=f"{HERE}:failing_factory"), 2, "no licence"),
    "nothing to resume": (options(resume=True), 2, "nothing to resume"),
    "another rank": (variable("RANK", "1"), 2, "the environment variable RANK is 1"),
    "another local rank": (variable("LOCAL_RANK", "3"), 2, "the environment variable LOCAL_RANK is 3"),
    "tasks of SLURM": (
        both(variable("SLURM_NTASKS", "4"), variable("SLURM_JOB_NAME", "job"), variable("SLURM_PROCID", "0")),
        2,
        "In an interactive session of SLURM, set SLURM_JOB_NAME=interactive",
    ),
    "BatchNorm of one position": (
        options(image_size=32, max_size=32, batch_size=1),
        2,
        "training BatchNorm needs more than one position per batch",
    ),
}
"""Name of a start in a new folder -> what makes it fail, the exit status, and a part of the message."""

EXISTING: dict[str, tuple[Prepare, int, str]] = {
    "a run without --resume": (options(), 2, "already holds a training run"),
    "overwrite, data missing": (options(overwrite=True, train=Path("no-such.json")), 1, "no-such.json"),
    "overwrite, first step": (
        both(options(overwrite=True), replaced(DetectionModule, "training_step", raising(OOM))),
        1,
        "out of memory",
    ),
    "checkpoint damaged": (damaged_checkpoint, 1, "last.ckpt cannot be read"),
    "checkpoint of another kind": (changed_checkpoint(another_kind), 1, "is not a retinanet checkpoint"),
    "checkpoint with weights only": (
        changed_checkpoint(lambda c: c.pop("optimizer_states")),
        1,
        "holds no optimizer_states",
    ),
    "resume, a checkpoint as folder": (the_checkpoint_as_folder, 2, "Resume the run with: retinanet train --resume -o"),
    "resume, fewer epochs": (options(resume=True, epochs=1), 2, "epochs must be 2 or more"),
    "resume, device": (options(resume=True, device="tpu"), 2, "device 'tpu' is not available"),
    "resume, optimiser": (options(resume=True, optimizer="sgd"), 2, "optimizer was adamw, is sgd"),
    "resume, frozen parts": (options(resume=True, freeze="backbone"), 2, "freeze was none, is backbone"),
    "resume, network": (options(resume=True, head_width=32), 2, "head_width was 16, is 32"),
    "resume, image size": (options(resume=True, image_size=72), 2, "image_size was 64, is 72"),
    "resume, another class": (both(options(resume=True), edited_data(add_class)), 2, "new: ring"),
    "resume, another dataset": (other_images, 2, "train must hold the images of the training run to resume"),
    "resume, first step": (
        both(options(resume=True, epochs=3), replaced(DetectionModule, "training_step", raising(OOM))),
        1,
        "out of memory",
    ),
    "resume, full disk": (
        both(options(resume=True, epochs=3), replaced(CsvTable, "append", raising(FULL))),
        1,
        "No space left",
    ),
}
"""Name of a start in the folder of an earlier run -> as in `NEW`."""


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Return the content of each file below a folder by its path; None for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def to_words(flags: Options) -> Iterator[str]:
    names = {"start_from": "from", "callbacks": "callback"}
    for name, value in flags.items():
        flag = names.get(name, name).replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,)))


def slow_after_the_first_step(starts: Iterable[str]) -> list[Any]:
    """Return the names of the starts. Those that reach a training step run in CI only."""
    is_late = ("first step", "batch size auto")
    return [pytest.param(name, marks=pytest.mark.slow) if name.endswith(is_late) else name for name in starts]


def assert_fails(flags: Options, status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *to_words(flags)])
    error = capsys.readouterr().err
    assert stopped.value.code == status, error
    assert message in error
    assert error.count("error: ") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("name", slow_after_the_first_step(NEW))
def test_a_failing_start_leaves_no_folder(
    name: str, tiny: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    prepare, status, message = NEW[name]
    flags = {**tiny, "epochs": 1, "output": tmp_path / "runs" / "new"}
    prepare(flags, tmp_path, monkeypatch)
    assert_fails(flags, status, message, capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXISTING)
def test_a_failing_start_leaves_an_existing_run_unchanged(
    name: str,
    tiny: Options,
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    prepare, status, message = EXISTING[name]
    flags = {**tiny, "output": run_folder, "score_threshold": 0.001, "epochs": 2}
    prepare(flags, tmp_path, monkeypatch)
    before = content_of(run_folder)
    assert_fails(flags, status, message, capsys)
    assert content_of(run_folder) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "0", "gpu", "GPU:1"])
def test_a_gpu_that_is_not_there_is_refused_before_the_data_is_read(device: str, tiny: Options, capsys):
    assert_fails({**tiny, "device": device, "train": Path("no.json")}, 2, f"device '{device}' is not available", capsys)
    assert not tiny["output"].exists()


@pytest.mark.parametrize("path", ["blocked/run", "n" * 300, "blocked"])
def test_an_output_that_cannot_be_a_folder_is_refused(path: str, tiny: Options, tmp_path: Path, capsys):
    (tmp_path / "blocked").write_text("kept")
    assert_fails({**tiny, "output": tmp_path / path}, 2, "output", capsys)
    assert (tmp_path / "blocked").read_text() == "kept"


@pytest.mark.parametrize("error", [KeyError("a fault"), RuntimeError("a fault")])
def test_an_interrupted_start_leaves_the_users_files(error: BaseException, tiny: Options, monkeypatch):
    tiny["output"].mkdir()
    (tiny["output"] / "csv").mkdir()
    (tiny["output"] / "csv" / "notes.txt").write_text("mine")
    monkeypatch.setattr(DetectionModule, "training_step", raising(error))
    before = content_of(tiny["output"])
    with pytest.raises(type(error)):
        fit(**tiny, logger="csv")
    assert content_of(tiny["output"]) == before


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ({"callbacks": (f"{HERE}:FailingCallback",)}, RuntimeError),
        ({"transform": f"{HERE}:failing_transform"}, KeyError),
    ],
)
def test_a_fault_in_the_users_code_leaves_no_folder(part: Options, error: type[Exception], tiny: Options):
    """The user's exception keeps its type and traceback, which the user needs to find the fault."""
    with pytest.raises(error):
        fit(**tiny, **part)
    assert not tiny["output"].exists()


def test_initial_weights_with_nan_are_refused(tiny: Options, run_folder: Path, tmp_path: Path):
    content = torch.load(run_folder / "best.ckpt", weights_only=True)
    content["state_dict"]["model.box_head.output.bias"].fill_(torch.nan)
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(UserError, match=r"found NaN or infinity in box_head.output.bias of .*nan.ckpt"):
        fit(**{**tiny, "output": tmp_path / "new", "start_from": tmp_path / "nan.ckpt"})
    assert not (tmp_path / "new").exists()
