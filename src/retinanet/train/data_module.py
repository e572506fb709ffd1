"""Data loaders of a training run. They never use the global random state: each sample key carries its own seed."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import lightning as L
import torch
from torch.utils.data import DataLoader

from retinanet.data import DataError, DetectionDataset, EpochSampling, TrainBatchSampler, collate, eval_batches
from retinanet.data.image_cache import ImageCache, plan_cache
from retinanet.train.cache_memory import check_cache_memory
from retinanet.train.loader_workers import (
    BATCHES_PER_WORKER,
    Watchdog,
    exit_with_trainer,
    kill_workers,
    worker_failure,
)
from retinanet.train.output_files import report_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from multiprocessing.process import BaseProcess

    from retinanet.config import TrainConfig
    from retinanet.data import Batch, DetectionData, PixelBatch
    from retinanet.data.dataset import Sample
    from retinanet.data.image_cache import Form
    from retinanet.data.user_transform import Transform
    from retinanet.formats.records import Record


FIRST_IMAGES: Final = 8
"""Number of training images that the report shows as the network got them."""


class LazyLoader(DataLoader[Any]):
    """Read nothing before the first batch is requested, and explain a dead or stuck worker.

    Lightning creates an iterator during setup, before it restores the epoch of a resumed run. With workers, a plain
    `DataLoader` would then start to read batches of the first epoch.

    Args:
        all_loaders: list of the loaders of the training run, to which this loader is added. If a worker fails, the
            workers of all loaders are killed, because the program would wait for stuck workers when it exits.
        worker_timeout: longest time to wait for a batch, seconds; 0: no limit. The `timeout` of `DataLoader` does not
            include the time to receive the batch, which never ends if the worker no longer responds.
        options: arguments of `DataLoader`.
    """

    def __init__(self, *, all_loaders: list[LazyLoader], worker_timeout: float, **options: Any) -> None:
        super().__init__(**options)
        self.worker_timeout = worker_timeout
        self.all_loaders = all_loaders
        all_loaders.append(self)

    def __iter__(self) -> Any:
        """Return an iterator over the epoch to which the sampler is set when the first batch is requested.

        The iterator raises `WorkerError` if a worker cannot start, died, or delivers no batch within `worker_timeout`.
        """
        return self._batches(super().__iter__)

    def _batches(self, start: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        watchdog = Watchdog(self._all_workers, self.worker_timeout)
        try:
            # The first iterator starts the workers. A process must not fork while a watchdog runs in a thread.
            with nullcontext() if self._iterator is None else watchdog:
                iterator = start()
            while True:
                with watchdog:
                    batch = next(iterator, None)
                if batch is None:
                    return
                yield batch
        except (RuntimeError, OSError, EOFError) as error:
            failure = watchdog.failure() or worker_failure(error)
            if failure is None:
                raise
            kill_workers(self._all_workers())
            raise failure from error

    def _all_workers(self) -> list[BaseProcess]:
        return [worker for loader in self.all_loaders for worker in getattr(loader._iterator, "_workers", ())]


class DetectionDataModule(L.LightningDataModule):
    """Build the training and validation loaders for the trainer's rank and epoch.

    Args:
        config: options of the training run.
        train_data: training images and annotations, already cut into tiles if `config` requires tiles.
        val_data: validation images and annotations, already cut into tiles if `config` requires tiles.
        transform: the user's transform of each training image.
    """

    def __init__(
        self,
        *,
        config: TrainConfig,
        train_data: DetectionData,
        val_data: DetectionData,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.transform = transform
        self.config = config
        self.train_data = train_data
        self.val_data = val_data
        self.sampling = EpochSampling.of(train_data, config.sampling)
        self.sampler: TrainBatchSampler | None = None
        self.loaders: list[LazyLoader] = []
        self.cache: ImageCache | None = None

    def cache_forms(self, val_records: Iterable[Record]) -> dict[Form, int]:
        """Return what `--cache ram` keeps of the training images and of these validation images: see `plan_cache`."""
        has_transform = self.transform is not None or self.config.augmentation.transform is not None
        forms = plan_cache(
            self.train_data.records, self.config.image, augment=self.config.augmentation, whole=has_transform
        )
        return plan_cache(val_records, self.config.image) | forms

    def check_memory(self) -> None:
        """Raise `OutOfMemoryError` if the images do not fit into memory, before any image is decoded."""
        if self.config.cached.cache == "ram":
            forms = self.cache_forms(self.val_data.records)
            check_cache_memory(self.config, sum(forms.values()), len({form.path for form in forms}))

    def setup(self, stage: str) -> None:
        """Decode the images of this rank for `--cache ram`, once, before worker processes start."""
        if self.config.cached.cache == "none" or self.cache is not None:
            return
        start = time.monotonic()
        own = sorted({index for batch in self._val_batches() for index in batch})
        forms = self.cache_forms(self.val_data.records[index] for index in own)
        threads = max(1, self.config.loading.workers)
        self.cache = ImageCache(forms, bit_depth=self.config.image.bit_depth, threads=threads)
        report_progress(
            f"image cache: {len(self.cache):,} images, {self.cache.nbytes / 1e6:,.0f} MB, decoded in "
            f"{time.monotonic() - start:.1f} s"
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader, set to the trainer's epoch, which is not the first after a resume."""
        trainer = self._attached()
        dataset, self.sampler = self._train_dataset(), self._train_sampler(trainer)
        # The keys of the samples carry the switch to the workers, which outlive an epoch.
        self.sampler.combine_epochs = self._combine_epochs(self.sampler.batches_per_epoch)
        self.sampler.set_epoch(trainer.current_epoch)
        return self._loader(dataset, self.sampler)

    def first_images(self, count: int = FIRST_IMAGES) -> list[tuple[str, Sample]]:
        """Return the first training images of the run, augmented as the network got them, with their names.

        The images are augmented anew: equal keys give equal pixels. An image that can no longer be read ends the list.
        """
        dataset, sampler = self._train_dataset(), self._train_sampler(self._attached())
        sampler.combine_epochs = None if self.sampler is None else self.sampler.combine_epochs
        keys = [key for batch in sampler.all_batches()[:count] for key in batch][:count]
        images: list[tuple[str, Sample]] = []
        for key in keys:
            try:
                images.append((self.train_data.records[key.index].path.name, dataset[key]))
            except DataError:
                break
        return images

    def _train_dataset(self) -> DetectionDataset:
        return DetectionDataset(
            data=self.train_data,
            image_config=self.config.image,
            augment=self.config.augmentation,
            transform=self.transform,
            expected_draws=self.sampling.draws_N,
            cache=self.cache,
        )

    def _train_sampler(self, trainer: L.Trainer) -> TrainBatchSampler:
        return TrainBatchSampler(
            widths=[record.width for record in self.train_data.records],
            heights=[record.height for record in self.train_data.records],
            batch_size=self.config.batch.batch_size,
            seed=self.config.random.seed,
            image_size=self.config.image.image_size,
            expected_draws=self.sampling.draws_N,
            multi_scale=self.config.augmentation.multi_scale if self.config.augmentation.augment else (),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def _combine_epochs(self, batches_per_epoch: int) -> int | None:
        """Return and report the number of epochs with copy-paste, mosaic and mixup.

        None with a time budget: `DetectionModule` sets the number when the number of epochs is planned.
        """
        augmentation, schedule = self.config.augmentation, self.config.schedule
        names, last = ", ".join(augmentation.combining), None
        if schedule.time_budget is not None:
            when = f"in all but the last {augmentation.close_augment} of the epochs that fit the time budget"
        else:
            epochs = schedule.started_epochs(-(-batches_per_epoch // self.config.optimiser.accumulate))
            last = max(0, epochs - augmentation.close_augment)
            when = f"in epochs 1 to {last} of {epochs}" if last else f"in none of {epochs} epochs (--close-augment)"
        if names:
            report_progress(f"{names}: {when}")
        return last

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation loader. Each image is read by one rank, once."""
        dataset = DetectionDataset(data=self.val_data, image_config=self.config.image, augment=None, cache=self.cache)
        return self._loader(dataset, self._val_batches())

    def _val_batches(self) -> list[list[int]]:
        """Return the indices of the validation images of this rank, batch by batch."""
        trainer = self._attached()
        world = trainer.world_size
        size = min(self.config.batch.batch_size, -(-len(self.val_data.records) // world))
        batches = eval_batches(self.val_data, size, rank=trainer.global_rank, world_size=world)
        # Lightning skips the evaluation on a rank without batches, and the other ranks would wait for it forever.
        return batches or [[0]]

    def transfer_batch_to_device(self, batch: PixelBatch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the normalised batch on a device."""
        return batch.to(device)

    def _attached(self) -> L.Trainer:
        if self.trainer is None:
            raise RuntimeError("the data module has no trainer, which provides rank and epoch: pass it to Trainer.fit")
        return self.trainer

    def _loader(self, dataset: DetectionDataset, batches: Any) -> DataLoader[Any]:
        workers = self.config.loading.workers
        return LazyLoader(
            all_loaders=self.loaders,
            worker_timeout=self.config.waiting.worker_timeout if workers else 0,
            dataset=dataset,
            batch_sampler=batches,
            collate_fn=partial(collate, image_config=self.config.image),
            num_workers=workers,
            prefetch_factor=BATCHES_PER_WORKER if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=partial(exit_with_trainer, os.getpid()),
            pin_memory=torch.cuda.is_available(),
            # Without its own generator, the loader draws the seed of its workers from the global random state.
            generator=torch.Generator().manual_seed(self.config.random.seed),
        )
