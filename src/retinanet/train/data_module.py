"""The loaders of a run. Nothing here draws from the global random state: an image's key carries its own seed."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from retinanet.config import ImageConfig
from retinanet.data import DetectionDataset, TrainBatchSampler, collate, eval_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retinanet.config import TrainConfig
    from retinanet.data import Batch, DetectionData
    from retinanet.data.user_transform import Transform


def _end_with(trainer: int, _: int) -> None:
    """Let a worker end when the process that trains is gone: killed, it cannot say so itself.

    torch's workers watch their parent, which is not the trainer where processes start from a fork server (Python 3.14).
    """

    def watch() -> None:
        while True:
            time.sleep(5)
            try:
                os.kill(trainer, 0)
            except OSError:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class LazyLoader(DataLoader[Any]):
    """Reads nothing before the first batch is asked for.

    Lightning asks for an iterator while it sets up, before it has restored the epoch of a resumed run, and with workers
    a `DataLoader` would begin to read batches of the first epoch there.
    """

    def __iter__(self) -> Any:
        """Return the batches of the epoch that the sampler is set to when the first is asked for."""
        begin = super().__iter__

        def batches() -> Iterator[Any]:
            yield from begin()

        return batches()


class DetectionDataModule(L.LightningDataModule):
    """Training and validation loaders, for the rank and the epoch at which Lightning asks for them."""

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
        self.sampler: TrainBatchSampler | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training loader, set to the trainer's epoch: after a resume it is not the first."""
        trainer = self._attached()
        image_config = self.config.image
        dataset = DetectionDataset(
            data=self.train_data,
            image_config=image_config,
            augment=self.config.augmentation,
            transform=self.transform,
        )
        self.sampler = TrainBatchSampler(
            widths=[record.width for record in self.train_data.records],
            heights=[record.height for record in self.train_data.records],
            batch_size=self.config.batch.batch_size,
            seed=self.config.random.seed,
            image_size=self.config.image.image_size,
            multi_scale=self.config.augmentation.multi_scale if self.config.augmentation.augment else (),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        self.sampler.set_epoch(trainer.current_epoch)
        return self._loader(dataset, self.sampler, image_config)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation loader: every image once, on one rank."""
        trainer = self._attached()
        image_config = self.config.image
        dataset = DetectionDataset(data=self.val_data, image_config=image_config, augment=None)
        world = trainer.world_size
        size = min(self.config.batch.batch_size, -(-len(dataset) // world))
        batches = eval_batches(self.val_data, size, rank=trainer.global_rank, world_size=world)
        batches = batches or [
            [0]
        ]  # Lightning skips the evaluation of a rank without batches, and the others would wait
        return self._loader(dataset, batches, image_config)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch as the type itself says."""
        return batch.to(device)

    def _attached(self) -> L.Trainer:
        if self.trainer is None:
            raise RuntimeError("the loaders need a trainer: it knows rank and epoch")
        return self.trainer

    def _loader(self, dataset: DetectionDataset, batches: Any, image_config: ImageConfig) -> DataLoader[Any]:
        workers = self.config.loading.workers
        return LazyLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=partial(collate, image_config=image_config),
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=partial(_end_with, os.getpid()),
            pin_memory=torch.cuda.is_available(),
            # Its own generator: the loader's seed for its workers must not move the training's random state.
            generator=torch.Generator().manual_seed(self.config.random.seed),
        )
