"""Batches of images: the sampler that groups images, and `collate`, which turns samples into tensors.

Shape suffixes: N batch, T objects of all images of the batch, H, W; 3 is RGB.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Sampler, get_worker_info

from retinanet import images
from retinanet.config import ImageConfig
from retinanet.data.dataset import Sample, SampleKey
from retinanet.data.sampling import draw_images
from retinanet.images import Frame
from retinanet.types import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch of images and their ground truth, the input of the network and the loss.

    Args:
        images_N3HW: float32, normalised, padded at the right and bottom.
        targets: ground truth of each image; boxes are xyxy, input pixels.
        frames: size of each image before and after resizing.
        indices: index of each image in its dataset.
    """

    images_N3HW: Tensor
    targets: tuple[Target, ...]
    frames: tuple[Frame, ...]
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def split_by_shape(self, *, divisor: int) -> list[Batch]:
        """Return batches of images of equal shape, each image padded only to multiples of `divisor`.

        An image then has the padding that it has alone, and the outputs of the network do not depend on the shapes of
        the other images. A batch of one shape is returned as it is.
        """
        shapes = [
            images.padded_size(frame.resized_width, frame.resized_height, divisor=divisor) for frame in self.frames
        ]
        groups = images.group_equal(shapes)
        if len(groups) == 1 and shapes[0] == tuple(self.images_N3HW.shape[2:]):
            return [self]
        parts = []
        for group in groups:
            H, W = shapes[group[0]]
            parts.append(
                replace(
                    self,
                    # Indexing with a list would copy the list to the device and wait for the copy.
                    images_N3HW=torch.stack([self.images_N3HW[i, :, :H, :W] for i in group]),
                    targets=tuple(self.targets[i] for i in group),
                    frames=tuple(self.frames[i] for i in group),
                    indices=tuple(self.indices[i] for i in group),
                )
            )
        return parts

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return replace(
            self,
            images_N3HW=self.images_N3HW.to(device),
            targets=tuple(target.to(device) for target in self.targets),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelBatch:
    """A batch before normalisation, as it travels from a loader worker to the training process and to the device.

    uint8 pixels need a quarter of the shared memory of a `Batch`. Between processes, only the pixels are in shared
    memory: every tensor there needs an open file of its own, and a batch has three further tensors for each image.

    Args:
        pixels_N3HW: uint8 RGB, padded with 0 at the right and bottom.
        targets: ground truth of each image; boxes are xyxy, input pixels.
        frames: size of each image before and after resizing.
        indices: index of each image in its dataset.
        mean: mean of each channel, in [0, 1].
        std: standard deviation of each channel, in [0, 1].
    """

    pixels_N3HW: Tensor
    targets: tuple[Target, ...]
    frames: tuple[Frame, ...]
    indices: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the targets as arrays, which need no shared memory."""
        arrays = [(t.boxes_G4.numpy(), t.labels_G.numpy(), t.crowd_G.numpy()) for t in self.targets]
        return _unpickle, (self.pixels_N3HW, arrays, self.frames, self.indices, self.mean, self.std)

    def to(self, device: torch.device | str) -> Batch:
        """Return the normalised batch on a device, after two copies: the pixels, and one packed tensor of all the rest.

        The copies are asynchronous if the pixels are in pinned memory. The images have the bits that `images.normalise`
        and `images.pad` give: a product, then a difference, each rounded to float32, and 0 in the padding.
        """
        device = torch.device(device)
        images_N3HW = self.pixels_N3HW.to(device, non_blocking=True).float()
        packed = self._packed()
        if device.type == "cuda":
            packed = packed.pin_memory()
        scale_3, shift_3, boxes_T4, labels_T, crowd_T = _unpack(packed.to(device, non_blocking=True))
        images_N3HW.mul_(scale_3.view(3, 1, 1)).sub_(shift_3.view(3, 1, 1))
        for image_3HW, frame in zip(images_N3HW, self.frames, strict=True):
            # Slices without elements still cost a kernel launch.
            if frame.resized_height < image_3HW.shape[1]:
                image_3HW[:, frame.resized_height :] = 0
            if frame.resized_width < image_3HW.shape[2]:
                image_3HW[:, :, frame.resized_width :] = 0
        counts = [len(target.labels_G) for target in self.targets]
        columns = (torch.split(values_T, counts) for values_T in (boxes_T4, labels_T, crowd_T))
        targets = tuple(Target(boxes_G4=b, labels_G=k, crowd_G=c) for b, k, c in zip(*columns, strict=True))
        return Batch(images_N3HW=images_N3HW, targets=targets, frames=self.frames, indices=self.indices)

    def _packed(self) -> Tensor:
        """Return an int32 tensor with the normalisation and all targets: six floats, then boxes, labels and crowds.

        The floats are stored as their bits.
        """
        floats = torch.tensor(
            [1 / (255 * std) for std in self.std] + [mean / std for mean, std in zip(self.mean, self.std, strict=True)],
            dtype=torch.float32,
            device="cpu",
        )
        boxes = [target.boxes_G4.to(torch.float32).flatten() for target in self.targets]
        labels = [target.labels_G.to(torch.int32) for target in self.targets]
        crowds = [target.crowd_G.to(torch.int32) for target in self.targets]
        return torch.cat([torch.cat([floats, *boxes]).view(torch.int32), *labels, *crowds])

    def pin_memory(self) -> PixelBatch:
        """Return the batch with its pixels in pinned memory. `DataLoader(pin_memory=True)` calls this method."""
        return replace(self, pixels_N3HW=self.pixels_N3HW.pin_memory())


def _unpack(packed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return scale_3, shift_3, boxes_T4, labels_T and crowd_T of `PixelBatch._packed`, T objects of all images."""
    T = (len(packed) - 6) // 6
    bits, labels_T, crowd_T = torch.split(packed, [6 + 4 * T, T, T])
    floats = bits.view(torch.float32)
    return floats[:3], floats[3:6], floats[6:].view(T, 4), labels_T.to(torch.int64), crowd_T.to(torch.bool)


def _unpickle(pixels_N3HW: Tensor, arrays: Sequence[Sequence[Any]], *rest: Any) -> PixelBatch:
    targets = (map(torch.from_numpy, image_arrays) for image_arrays in arrays)
    return PixelBatch(
        pixels_N3HW=pixels_N3HW,
        targets=tuple(Target(boxes_G4=boxes, labels_G=labels, crowd_G=crowd) for boxes, labels, crowd in targets),
        **dict(zip(("frames", "indices", "mean", "std"), rest, strict=True)),
    )


def collate(samples: Sequence[Sample], image_config: ImageConfig) -> PixelBatch:
    """Return a batch of samples, with the images padded to one size. `to` normalises the batch.

    In a loader worker, the pixels are put into shared memory here. PyTorch would do that in a thread whose error is
    printed and forgotten, and the training process would wait for the batch.

    Raises:
        RuntimeError: a loader worker has too little shared memory.
    """
    pixels = [sample.pixels_3HW.numpy() for sample in samples]
    pixels_N3HW = torch.from_numpy(images.pad(pixels, divisor=image_config.size_divisor))
    return PixelBatch(
        pixels_N3HW=pixels_N3HW if get_worker_info() is None else pixels_N3HW.share_memory_(),  # type: ignore[no-untyped-call]
        targets=tuple(sample.target for sample in samples),
        frames=tuple(sample.frame for sample in samples),
        indices=tuple(sample.index for sample in samples),
        mean=image_config.image_mean,
        std=image_config.image_std,
    )


class TrainBatchSampler(Sampler[list[SampleKey]]):
    """Yield shuffled batches of images of similar shape, for `DataLoader(batch_sampler=...)`.

    Landscape and portrait images go into separate batches, which avoids most padding. Images left over after the full
    batches of both shapes share the last batches. Without `expected_draws`, every image comes once per epoch. Every
    rank gets the same number of batches, equal in all epochs. If batches are missing for that, the largest ones are
    split. Batches of one image are repeated instead. An image that repeats within an epoch has another sample seed each
    time.

    The batches depend only on (seed, epoch). A resumed run continues with `set_epoch(epoch, skip=finished_batches)`.

    Args:
        widths: width of each image, pixels.
        heights: height of each image, pixels.
        batch_size: number of images per batch.
        seed: seed of the order of images, of the image sizes and of the seeds of samples.
        image_size: shorter side of the resized images, pixels.
        expected_draws: expected number of draws of each image per epoch, see `EpochSampling.draws_N`. The sum is a
            whole number. None: every image once.
        combine_epochs: number of epochs, from the first, whose samples may use further images (`SampleKey.combine`).
            None: all epochs.
        multi_scale: values of `image_size`, one of which is drawn for each batch, equal on all ranks. Empty: off.
        rank: index of this process, from 0.
        world_size: number of processes that share the data.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        heights: Sequence[int],
        batch_size: int,
        seed: int,
        image_size: int,
        expected_draws: Sequence[float] | npt.NDArray[np.float64] | None = None,
        combine_epochs: int | None = None,
        multi_scale: Sequence[int] = (),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(widths) != len(heights) or not len(widths):
            raise ValueError(f"expected as many widths as heights, found {len(widths)} and {len(heights)}")
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"expected batch_size >= 1, 0 <= rank < world_size: {batch_size}, {rank}, {world_size}")
        self.landscape = np.asarray(widths) >= np.asarray(heights)
        self.draws_N = np.ones(len(widths)) if expected_draws is None else np.asarray(expected_draws, np.float64)
        self.images_per_epoch = int(self.draws_N.sum().round())
        if self.draws_N.shape != self.landscape.shape or abs(self.images_per_epoch - self.draws_N.sum()) > 1e-3:
            raise ValueError(
                f"expected_draws must hold {len(widths)} numbers whose sum is a whole number, found "
                f"{len(self.draws_N)} with sum {self.draws_N.sum()}"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.sizes = tuple(multi_scale) or (image_size,)
        self.combine_epochs = combine_epochs
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.skip = 0

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches per rank in a complete epoch."""
        batches = -(-self.images_per_epoch // self.batch_size)
        return -(-batches // self.world_size)

    def __len__(self) -> int:
        return self.batches_per_epoch - self.skip

    def __iter__(self) -> Iterator[list[SampleKey]]:
        yield from self.all_batches()[self.skip :]

    def all_batches(self) -> list[list[SampleKey]]:
        """Return the batches of the epoch on this rank, with the batches that `skip` leaves out."""
        # For each image, the number of its earlier occurrences in the epoch, on all ranks.
        repeats: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
        batches = [[(i, next(repeats[i])) for i in indices] for indices in self._global_batches(self.epoch)]
        mine = batches[self.rank :: self.world_size]
        sizes = self._rng(self.epoch, 1).choice(self.sizes, len(mine)).tolist()
        combine = self.combine_epochs is None or self.epoch < self.combine_epochs
        return [
            [SampleKey(i, sample_seed(self.seed, self.epoch, i, repeat), image_size, combine) for i, repeat in batch]
            for batch, image_size in zip(mine, sizes, strict=True)
        ]

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """Set the epoch of the next iteration. The first `skip` batches of that epoch are left out."""
        if not 0 <= skip <= self.batches_per_epoch:
            raise ValueError(f"expected skip between 0 and {self.batches_per_epoch}, found {skip}")
        self.epoch, self.skip = epoch, skip

    def _rng(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([_unsigned(self.seed), epoch, purpose])

    def _global_batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of all ranks. Their number is a multiple of `world_size`."""
        rng = self._rng(epoch, 0)
        order = rng.permutation(draw_images(self.draws_N, self._rng(epoch, 2)))
        groups = [order[self.landscape[order]].tolist(), order[~self.landscape[order]].tolist()]
        b = self.batch_size
        batches: list[list[int]] = []
        leftover: list[int] = []
        for group in groups:
            full = len(group) // b * b
            batches += [group[i : i + b] for i in range(0, full, b)]
            leftover += group[full:]
        batches += [leftover[i : i + b] for i in range(0, len(leftover), b)]
        while len(batches) < self.batches_per_epoch * self.world_size:
            largest = max(batches, key=len)
            half = len(largest) // 2
            if half:
                batches.remove(largest)
                batches += [largest[:half], largest[half:]]
            else:
                batches.append(batches[len(batches) % len(order)])
        return [batches[i] for i in rng.permutation(len(batches))]


def sample_seed(seed: int, epoch: int, index: int, repeat: int = 0) -> int:
    """Return a hashed seed, 0 to 2^63 - 1, for one image in one epoch; `repeat` counts its earlier occurrences."""
    entropy = [_unsigned(seed), epoch, index, *([repeat] if repeat else [])]
    mixed = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return int(mixed >> np.uint64(1))


def _unsigned(seed: int) -> int:
    """Return a seed as a non-negative integer, which numpy requires."""
    return seed % 2**64
