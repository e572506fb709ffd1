"""Memory of a training step: measurement, choice of the batch size, and advice when memory runs out.

Shape suffixes: G ground-truth boxes, H, W.
"""

from __future__ import annotations

import copy
import gc
import os
import traceback
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retinanet.config import with_options
from retinanet.data.transforms import max_size_for
from retinanet.errors import ConfigError, UserError
from retinanet.images import resized_size
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.train.devices import training_device
from retinanet.train.output_files import report_progress
from retinanet.train.precision import autocast
from retinanet.types import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from retinanet.config import TrainConfig
    from retinanet.data import DetectionData
    from retinanet.model import RetinaNet

MIB: Final = 2**20
SHARE: Final = 0.8
"""Maximum share of the device's memory for training. The system, loader workers and evaluation need the rest."""
MARGIN: Final = 1.3
"""Factor on the memory measured on a CPU, for scratch space within operators and memory that the allocator retains."""
LARGEST: Final = 64
"""Largest batch size that `auto` chooses. Larger batches hardly train faster and need a longer warm-up."""
STEPS_PER_EPOCH: Final = 16
"""Minimum number of steps per epoch that `auto` leaves, so that a small dataset is not a few steps of huge batches."""
CROWDED: Final = 1000
"""An image with more ground-truth boxes than this number is named in the advice when memory runs out."""


class OutOfMemoryError(UserError):
    """A training step needs more memory than the device has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMemory:
    """Memory of a training step, bytes.

    Args:
        per_image: memory for each image of the batch, at the largest image size.
        fixed: memory that does not depend on the batch: gradients, optimiser and running average.
        budget: memory that the device can provide for a step.
        shape: (H, W) of the largest batch, pixels.
        most_objects: largest number of objects in an image, and the file of that image.
    """

    per_image: int
    fixed: int
    budget: int
    shape: tuple[int, int]
    most_objects: tuple[int, Path]

    @property
    def largest_batch(self) -> int:
        """Largest batch size that fits into memory; 0 if a single image does not fit."""
        return max(0, (self.budget - self.fixed) // max(1, self.per_image))

    def sentence(self) -> str:
        """Return the memory per image, the fixed memory and the budget in words."""
        return (
            f"a training step needs {self.per_image / MIB:,.0f} MiB per image of {self.shape[1]}x{self.shape[0]} "
            f"pixels, and {self.fixed / MIB:,.0f} MiB for any batch; {self.budget / MIB:,.0f} MiB are available"
        )


def measure_step_memory(model: RetinaNet, config: TrainConfig, data: DetectionData, device: torch.device) -> StepMemory:
    """Measure a training step with one image and with two images, at the largest size of the training run.

    On CUDA, the memory is read from PyTorch's allocator. On a CPU, the size of every tensor that an operator returns is
    counted until the tensor is freed; unlike the size of the process, this count is reproducible. The model and the
    random states do not change.

    Raises:
        RuntimeError: two images do not fit into memory. This is the device's own error.
    """
    shape = largest_shape(config, data)
    crowded = max(data.records, key=lambda record: len(record.boxes_G4))
    probe = copy.deepcopy(model).to(device).train()
    weights = [p for p in probe.parameters() if p.requires_grad]
    trained = sum(p.numel() * p.element_size() for p in weights)
    everything = sum(p.numel() * p.element_size() for p in probe.parameters())
    try:
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            objects = len(crowded.boxes_G4) * config.augmentation.most_images
            one, two = (_peak_memory(probe, config, shape, objects, n, device) for n in (1, 2))
    finally:
        del probe
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    margin = 1.0 if device.type == "cuda" else MARGIN
    states = checkpoint_size(model, config) - everything  # a checkpoint holds the weights and the states
    on_device = everything if device.type == "cuda" else 0
    return StepMemory(
        per_image=int(margin * (two - one)),
        fixed=int(margin * max(trained, 2 * one - two)) + states + on_device,
        budget=memory_budget(device),
        shape=shape,
        most_objects=(len(crowded.boxes_G4), crowded.path),
    )


def checkpoint_size(model: nn.Module, config: TrainConfig) -> int:
    """Return the approximate size of last.ckpt, bytes: weights, their running average and the optimiser's state."""
    sizes = [(p.requires_grad, p.numel() * p.element_size()) for p in model.parameters()]
    weights, trained = sum(size for _, size in sizes), sum(size for is_trained, size in sizes if is_trained)
    copies = 2 if config.optimiser.ema else 1
    return weights * copies + trained * (2 if config.optimiser.optimizer == "adamw" else 1)


def largest_shape(config: TrainConfig, data: DetectionData) -> tuple[int, int]:
    """Return (H, W) of the largest padded batch, pixels. A batch may hold both the widest and the tallest image."""
    steps = config.augmentation
    jitter = steps.scale_jitter[1] if steps.augment else 1.0
    sizes = steps.multi_scale if steps.augment and steps.multi_scale else (config.image.image_size,)
    image_size = max(1, round(max(sizes) * jitter))
    max_size = max_size_for(config.image, image_size=image_size)
    shapes = {(record.width, record.height) for record in data.records}
    resized = [resized_size(w, h, image_size=image_size, max_size=max_size) for w, h in shapes]
    widest, tallest = max(w for w, _ in resized), max(h for _, h in resized)
    divisor = config.image.size_divisor
    return -(-tallest // divisor) * divisor, -(-widest // divisor) * divisor


def memory_budget(device: torch.device) -> int:
    """Return the memory for training, bytes: the free memory, but at most the share `SHARE` of the total memory.

    Raises:
        ConfigError: the system does not report its free memory.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(SHARE * total, free))
    memory = main_memory()
    if memory is None:
        raise ConfigError(
            "--batch-size auto needs the amount of free memory, which this system does not report: set --batch-size to "
            "a number"
        )
    free, total = memory
    return int(min(SHARE * total, free))


def main_memory() -> tuple[int, int] | None:
    """Return the free and the total main memory, bytes, within the limit of a container; None if it is not reported."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines()}
    total, free = values["MemTotal"], values["MemAvailable"]
    for limit_file, used_file in _CGROUPS:
        if limit_file.exists() and used_file.exists() and limit_file.read_text().strip().isdigit():
            limit = int(limit_file.read_text())
            total, free = min(total, limit), min(free, max(0, limit - int(used_file.read_text())))
    return free, total


_CGROUPS: Final = tuple(
    (Path("/sys/fs/cgroup") / limit, Path("/sys/fs/cgroup") / used)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    )
)
"""Files with the memory limit and the memory in use of the container (cgroup v2 and v1)."""


def with_batch_size(model: RetinaNet, config: TrainConfig, data: DetectionData) -> TrainConfig:
    """Return the config with a number in place of `batch_size` auto: the largest power of two that fits into memory.

    Powers of two are far apart, so other programs on the machine rarely change the number.

    Raises:
        ConfigError: training uses several processes.
        OutOfMemoryError: a single image does not fit into memory.
    """
    if config.batch.batch_size:
        return config
    if config.compute.devices != 1 or config.compute.nodes != 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "--batch-size auto works with one training process, but this training run has several, which need the same "
            "batch size: set --batch-size to a number"
        )
    device = training_device(config)
    try:
        step_memory = measure_step_memory(model, config, data, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"a training step with two images does not fit into the memory of {device}: {LOWER}"
        ) from error
    if not step_memory.largest_batch:
        raise OutOfMemoryError(f"a single image does not fit into memory: {step_memory.sentence()}. To train: {LOWER}")
    by_data = max(1, len(data.records) // STEPS_PER_EPOCH)
    limits = {
        step_memory.largest_batch: "memory",
        LARGEST: "the largest batch size of auto",
        by_data: f"{STEPS_PER_EPOCH} steps per epoch",
    }
    limit = min(limits)
    size = 2 ** (limit.bit_length() - 1)
    report_progress(f"batch size {size} (limited by {limits[limit]}): {step_memory.sentence()}")
    return with_options(config, batch_size=size)


@contextmanager
def explain_out_of_memory(
    model: RetinaNet, config: TrainConfig, data: DetectionData, device: torch.device
) -> Iterator[None]:
    """Replace an out-of-memory error by one that states the memory per image, the budget and the options to lower.

    Raises:
        OutOfMemoryError: the code within the context ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # the frames hold the tensors of the step
        raise OutOfMemoryError(_advice(model, config, data, device, str(error))) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports that memory ran out: an error of CUDA, of PyTorch on the CPU, or of Python."""
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(phrase in str(error) for phrase in phrases)


def _advice(model: RetinaNet, config: TrainConfig, data: DetectionData, device: torch.device, error: str) -> str:
    for parameter in model.parameters():
        parameter.grad = None
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    message = f"out of memory on {device} with --batch-size {config.batch.batch_size}"
    try:
        step_memory = measure_step_memory(model, config, data, device)
    except (RuntimeError, MemoryError, ConfigError):
        return f"{message}. Two images do not fit into memory ({error.splitlines()[0]}). To train: {LOWER}"
    message += f": {step_memory.sentence()}."
    fits = step_memory.largest_batch
    if 0 < fits < config.batch.batch_size:
        message += f" --batch-size {fits} fits"
        if config.batch.batch_size % fits == 0:
            accumulate = config.optimiser.accumulate * config.batch.batch_size // fits
            message += f"; --accumulate {accumulate} keeps the number of images per optimiser step"
        message += f". Or {LOWER}."
    elif not fits:
        message += f" A single image does not fit into memory. To train: {LOWER}."
    else:
        smaller = f" to {config.batch.batch_size // 2}" if config.batch.batch_size > 1 else ""
        message += (
            " A batch should therefore fit, so another program probably uses memory: stop that program, or lower "
            f"--batch-size{smaller}."
        )
    count, path = step_memory.most_objects
    if count > CROWDED:
        message += f" {path} has {count:,} objects: cut such images into tiles with --tile."
    return message


LOWER: Final = (
    "lower --image-size and --max-size, choose a smaller --backbone or --head-width, or use --precision bf16 on a GPU"
)
"""Advice that reduces the memory per image."""


def _peak_memory(
    model: nn.Module, config: TrainConfig, shape: tuple[int, int], objects: int, images: int, device: torch.device
) -> int:
    """Return the peak memory of one training step without the weights, bytes.

    Args:
        model: network in training mode; its gradients are deleted.
        config: options of the training run.
        shape: (H, W) of the images, pixels.
        objects: number of random ground-truth boxes in each image.
        images: batch size.
        device: device of the network.
    """
    H, W = shape
    generator = torch.Generator().manual_seed(0)
    corners_G4 = torch.rand((objects, 4), generator=generator) * torch.tensor([W / 2, H / 2, W / 2, H / 2])
    boxes_G4 = torch.cat([corners_G4[:, :2], corners_G4[:, :2] + corners_G4[:, 2:] + 2], dim=1).to(device)
    labels_G = torch.zeros(objects, dtype=torch.int64, device=device)
    target = Target(boxes_G4=boxes_G4, labels_G=labels_G, crowd_G=torch.zeros_like(labels_G, dtype=torch.bool))
    images_N3HW = torch.rand((images, 3, H, W), generator=generator).to(device, memory_format=torch.channels_last)
    loss = DetectionLoss(config=config.loss, distributed=False)
    assigner = make_assigner(config.matching)

    def step() -> None:
        with autocast(config.compute.precision, device.type):
            outputs = model(images_N3HW)
        torch.autograd.backward(loss(outputs, assigner.assign(outputs, [target] * images)).total)

    for parameter in model.parameters():
        parameter.grad = None
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device) - images_N3HW.nbytes
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    with _LiveBytes() as live:
        step()
    return int(live.peak + images_N3HW.nbytes)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sum the sizes of all tensors that operators return and that still exist: `now` and its maximum `peak`, bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf, inputs)
        return out

    def _add(self, tensor: Tensor, inputs: set[int]) -> None:
        storage = tensor.untyped_storage()
        if id(storage) in self._counted or id(storage) in inputs:
            return
        size = storage.nbytes()
        self._counted.add(id(storage))
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, id(storage), size)

    def _remove(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size
