"""Which images make a batch, and the batch they make. Shape suffixes: N batch, H, W; 3 is RGB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from retinanet import images
from retinanet.config import ImageConfig
from retinanet.data.dataset import Sample, SampleKey
from retinanet.images import Frame
from retinanet.types import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What the network and the loss take.

    Args:
        images_N3HW: float32, normalised, padded at the right and bottom.
        targets: the objects of each image, xyxy, input pixels.
        frames: the size of each image before and after resizing.
        indices: of each image in its dataset.
    """

    images_N3HW: Tensor
    targets: tuple[Target, ...]
    frames: tuple[Frame, ...]
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device; from pinned memory the copy does not wait."""
        return replace(
            self,
            images_N3HW=self.images_N3HW.to(device, non_blocking=True),
            targets=tuple(target.to(device) for target in self.targets),
        )

    def pin_memory(self) -> Batch:
        """Return the batch with its pixels in page-locked memory; `DataLoader(pin_memory=True)` calls it."""
        return replace(self, images_N3HW=self.images_N3HW.pin_memory())


def collate(samples: Sequence[Sample], image_config: ImageConfig) -> Batch:
    """Normalise and pad samples to a batch."""
    pixels = [
        images.normalise(
            sample.pixels_3HW.permute(1, 2, 0).numpy(), mean=image_config.image_mean, std=image_config.image_std
        )
        for sample in samples
    ]
    return Batch(
        images_N3HW=torch.from_numpy(images.pad(pixels, divisor=image_config.size_divisor)),
        targets=tuple(sample.target for sample in samples),
        frames=tuple(sample.frame for sample in samples),
        indices=tuple(sample.index for sample in samples),
    )


class TrainBatchSampler(Sampler[list[SampleKey]]):
    """Shuffled batches of images of like shape; pass it to a `DataLoader` as `batch_sampler`.

    Landscape and portrait images come in batches of their own, which saves most of the padding; what is left over
    of the two makes the last batches together. Every image comes once an epoch. Every rank has the same number of
    batches in every epoch: where the last round does not fill all ranks, the largest batches are split, and images
    repeat only where there are fewer of them than ranks.

    The batches depend on (seed, epoch) alone: a resumed run goes on with `set_epoch(epoch, skip=batches done)`.

    Args:
        widths: of all images, pixels.
        heights: likewise.
        batch_size: images of a batch.
        seed: of the order, the sizes and each sample's own seed.
        image_size: shorter side of the resized images.
        multi_scale: where not empty, each batch takes its `image_size` from here; the same on all ranks.
        rank: which of the processes this is.
        world_size: how many processes share the data.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        heights: Sequence[int],
        batch_size: int,
        seed: int,
        image_size: int,
        multi_scale: Sequence[int] = (),
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(widths) != len(heights) or not len(widths):
            raise ValueError(f"expected as many widths as heights, found {len(widths)} and {len(heights)}")
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"expected batch_size >= 1, 0 <= rank < world_size: {batch_size}, {rank}, {world_size}")
        self.landscape = np.asarray(widths) >= np.asarray(heights)
        self.batch_size = batch_size
        self.seed = seed
        self.sizes = tuple(multi_scale) or (image_size,)
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.skip = 0

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one rank in a whole epoch."""
        batches = -(-len(self.landscape) // self.batch_size)
        return -(-batches // self.world_size)

    def __len__(self) -> int:
        return self.batches_per_epoch - self.skip

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rounds = self._global_batches(self.epoch)[self.rank :: self.world_size]
        sizes = self._rng(self.epoch, 1).choice(self.sizes, len(rounds)).tolist()
        for indices, image_size in list(zip(rounds, sizes, strict=True))[self.skip :]:
            yield [SampleKey(i, sample_seed(self.seed, self.epoch, i), image_size) for i in indices]

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """Choose the epoch that the next iteration goes through, without its first `skip` batches."""
        if not 0 <= skip <= self.batches_per_epoch:
            raise ValueError(f"expected skip between 0 and {self.batches_per_epoch}, found {skip}")
        self.epoch, self.skip = epoch, skip

    def _rng(self, epoch: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([_unsigned(self.seed), epoch, purpose])

    def _global_batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of all ranks, a multiple of `world_size` of them."""
        rng = self._rng(epoch, 0)
        order = rng.permutation(len(self.landscape))
        groups = [order[self.landscape[order]].tolist(), order[~self.landscape[order]].tolist()]
        b = self.batch_size
        batches: list[list[int]] = []
        left: list[int] = []
        for group in groups:
            full = len(group) // b * b
            batches += [group[i : i + b] for i in range(0, full, b)]
            left += group[full:]
        batches += [left[i : i + b] for i in range(0, len(left), b)]
        while len(batches) < self.batches_per_epoch * self.world_size:
            largest = max(batches, key=len)
            half = len(largest) // 2
            if half:
                batches.remove(largest)
                batches += [largest[:half], largest[half:]]
            else:
                batches.append(batches[len(batches) % len(self.landscape)])
        return [batches[i] for i in rng.permutation(len(batches))]


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Return a well-mixed seed, 0 to 2^63 - 1, for one image in one epoch."""
    mixed = np.random.SeedSequence([_unsigned(seed), epoch, index]).generate_state(1, np.uint64)[0]
    return int(mixed >> np.uint64(1))


def _unsigned(seed: int) -> int:
    """Return a seed as numpy takes it: not negative."""
    return seed % 2**64
