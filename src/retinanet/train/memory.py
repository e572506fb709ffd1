"""The memory that a training step takes for an image, measured; the batch that fits; what to lower where it does not.

Shape suffixes: N batch, G objects of an image, H, W.
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
"""Of the device's memory, at the most: the system, the workers and the evaluation want some too."""
MARGIN: Final = 1.3
"""On what is counted on a CPU: scratch space within operators, and what the allocator holds back."""
LARGEST: Final = 64
"""Images of a batch that `auto` chooses: more hardly trains faster and needs a longer warm-up."""
STEPS_AN_EPOCH: Final = 16
"""`auto` leaves at least so many: a small dataset would else be a few steps of huge batches."""
CROWDED: Final = 1000


class OutOfMemoryError(UserError):
    """A step does not fit into the memory of the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a training step needs, bytes.

    Args:
        per_image: more for each image of the batch, at its largest size.
        fixed: gradients, optimiser and running average, whatever the batch.
        budget: what the device has for both.
        shape: (H, W) of the largest batch, pixels.
        most_objects: objects of the most crowded image, and its file.
    """

    per_image: int
    fixed: int
    budget: int
    shape: tuple[int, int]
    most_objects: tuple[int, Path]

    @property
    def fits(self) -> int:
        """Images of a batch that fit; 0 where not one does."""
        return max(0, (self.budget - self.fixed) // max(1, self.per_image))

    def sentence(self) -> str:
        """Return the numbers in words."""
        return (
            f"an image of {self.shape[1]}x{self.shape[0]} pixels takes {self.per_image / MIB:,.0f} MiB of a step, "
            f"all else {self.fixed / MIB:,.0f} MiB, and {self.budget / MIB:,.0f} MiB are there"
        )


def measure(model: RetinaNet, config: TrainConfig, data: DetectionData, device: torch.device) -> Needs:
    """Measure a step with one image and with two, at the largest size that the run can meet.

    On CUDA the allocator counts. On a CPU every tensor that an operator returns is counted while it lives, which gives
    the same number every time, where a process's size does not. Neither the model nor any random state changes.

    Raises:
        RuntimeError: not even two images fit: the device's own error.
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
            one, two = (_peak(probe, config, shape, len(crowded.boxes_G4), n, device) for n in (1, 2))
    finally:
        del probe
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    margin = 1.0 if device.type == "cuda" else MARGIN
    states = trained * (2 if config.optimiser.optimizer == "adamw" else 1) + (everything if config.optimiser.ema else 0)
    on_device = everything if device.type == "cuda" else 0
    return Needs(
        per_image=int(margin * (two - one)),
        fixed=int(margin * max(trained, 2 * one - two)) + states + on_device,
        budget=budget(device),
        shape=shape,
        most_objects=(len(crowded.boxes_G4), crowded.path),
    )


def largest_shape(config: TrainConfig, data: DetectionData) -> tuple[int, int]:
    """Return (H, W) of the largest padded batch: of the widest and the tallest image, which may come together."""
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


def budget(device: torch.device) -> int:
    """Return the bytes that training may take: a share of what the device has, or what is free where that is less."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(min(SHARE * total, free))
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        raise ConfigError(
            "batch_size auto needs to know the free memory, which this system does not tell: give a number"
        )
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines()}
    total, free = found["MemTotal"], found["MemAvailable"]
    for limit, used in _CGROUPS:
        if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
            most = int(limit.read_text())
            total, free = min(total, most), min(free, max(0, most - int(used.read_text())))
    return int(min(SHARE * total, free))


_CGROUPS: Final = tuple(
    (Path("/sys/fs/cgroup") / limit, Path("/sys/fs/cgroup") / used)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    )
)


def with_batch_size(model: RetinaNet, config: TrainConfig, data: DetectionData) -> TrainConfig:
    """Return the config with a number for `batch_size` auto: the largest power of two that fits.

    A power of two, so that what else runs on the machine hardly ever changes it.

    Raises:
        ConfigError: several processes.
        OutOfMemoryError: not even one image fits.
    """
    if config.batch.batch_size:
        return config
    if config.compute.devices != 1 or config.compute.nodes != 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("batch_size auto is for one process, and several must agree: give a number")
    device = device_of(config)
    try:
        needs = measure(model, config, data, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"a step with two images does not fit into the memory of {device}; {_lower()}"
        ) from error
    if not needs.fits:
        raise OutOfMemoryError(f"not even one image fits: {needs.sentence()}; {_lower()}")
    enough = max(1, len(data.records) // STEPS_AN_EPOCH)
    size = 2 ** (min(needs.fits, LARGEST, enough).bit_length() - 1)
    why = {needs.fits: "memory", LARGEST: "the most that auto takes", enough: f"{STEPS_AN_EPOCH} steps an epoch"}
    limit = why[min(needs.fits, LARGEST, enough)]
    report_progress(f"batch size {size} (bounded by {limit}): {needs.sentence()}")
    return with_options(config, batch_size=size)


def device_of(config: TrainConfig) -> torch.device:
    """Return the device that Lightning takes for the config's word."""
    if config.hardware.device != "auto":
        return torch.device("cuda" if config.hardware.device == "gpu" else config.hardware.device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def explained(model: RetinaNet, config: TrainConfig, data: DetectionData, device: torch.device) -> Iterator[None]:
    """Put running out of memory into words: what an image takes, what there is, and which option to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step
        raise OutOfMemoryError(_advice(model, config, data, device, str(error))) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is used up: CUDA's own, torch's for the CPU, or Python's."""
    words = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def _advice(model: RetinaNet, config: TrainConfig, data: DetectionData, device: torch.device, error: str) -> str:
    for parameter in model.parameters():
        parameter.grad = None
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    said = f"out of memory on {device}, with batches of {config.batch.batch_size}"
    try:
        needs = measure(model, config, data, device)
    except (RuntimeError, MemoryError, ConfigError):
        return f"{said}; not even two images fit: {_lower()} ({error.splitlines()[0]})"
    said += f": {needs.sentence()}."
    if 0 < needs.fits < config.batch.batch_size:
        said += f" --batch-size {needs.fits} fits"
        if config.batch.batch_size % needs.fits == 0:
            accumulate = config.optimiser.accumulate * config.batch.batch_size // needs.fits
            said += f", and --accumulate {accumulate} keeps the images of a step"
        said += f"; or {_lower()}."
    elif not needs.fits:
        said += f" Not even one image fits: {_lower()}."
    else:
        smaller = f" to {config.batch.batch_size // 2}" if config.batch.batch_size > 1 else ""
        said += f" By that a batch fits, so something else takes memory too: end that, or lower --batch-size{smaller}."
    count, path = needs.most_objects
    if count > CROWDED:
        said += f" {path} has {count:,} objects: --tile cuts such images into parts."
    return said


def _lower() -> str:
    return "lower --image-size with --max-size, take a smaller --backbone or --head-width, or --precision bf16 on a GPU"


def _peak(
    model: nn.Module, config: TrainConfig, shape: tuple[int, int], objects: int, images: int, device: torch.device
) -> int:
    """Return the most bytes that lived at once in a step, without the weights."""
    H, W = shape
    generator = torch.Generator().manual_seed(0)
    corners_G4 = torch.rand((objects, 4), generator=generator) * torch.tensor([W / 2, H / 2, W / 2, H / 2])
    boxes_G4 = torch.cat([corners_G4[:, :2], corners_G4[:, :2] + corners_G4[:, 2:] + 2], dim=1).to(device)
    labels_G = torch.zeros(objects, dtype=torch.int64, device=device)
    target = Target(boxes_G4=boxes_G4, labels_G=labels_G, crowd_G=torch.zeros_like(labels_G, dtype=torch.bool))
    images_N3HW = torch.rand((images, 3, H, W), generator=generator).to(device, memory_format=torch.channels_last)
    loss = DetectionLoss(config=config.loss, distributed=False)
    assign = make_assigner(config.matching)

    def step() -> None:
        with autocast(config.compute.precision, device.type):
            outputs = model(images_N3HW)
        targets = assign(outputs.anchors_A4, [target] * images, anchors_per_level=outputs.anchors_per_level)
        torch.autograd.backward(loss(outputs, targets).total)

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
    return int(live.most + images_N3HW.nbytes)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages of all tensors that operators return, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._add(leaf, inputs)
        return out

    def _add(self, tensor: Tensor, inputs: set[int]) -> None:
        storage = tensor.untyped_storage()
        if id(storage) in self._known or id(storage) in inputs:
            return
        size = storage.nbytes()
        self._known.add(id(storage))
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._remove, id(storage), size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
