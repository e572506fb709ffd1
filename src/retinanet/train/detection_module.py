"""One training step and one validation step, for Lightning. Network, loss and decoding stay three objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import torch.distributed as dist

from retinanet.checkpoint.loaded_model import KEY, describe_run
from retinanet.evaluate import Metrics, detections_to_array, detections_to_coco, evaluate_results
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.postprocess import postprocess
from retinanet.predict.merge import merge_tiles
from retinanet.train.nonfinite import health
from retinanet.train.optimisation import lr_factor, make_optimizer
from retinanet.train.random_state import restore_randomness, state_of_randomness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retinanet.config import TrainConfig
    from retinanet.data import Batch, DetectionData, TiledData
    from retinanet.losses import DetectionLosses
    from retinanet.model import RetinaNet
    from retinanet.types import AnchorTargets, ArrayDetections, HeadOutputs

    Watch = Callable[["DetectionModule", int, Batch, HeadOutputs, AnchorTargets, DetectionLosses], None]


class DetectionModule(L.LightningModule):
    """Ties the network to its loss, its data's classes and its optimiser.

    Args:
        model: the network.
        config: the run's.
        train_data: for class names and file names in messages.
        val_data: for the ground truth of the evaluation.
        val_tiles: what the validation loader goes through: `val_data`, cut as `config` says.
    """

    def __init__(
        self,
        *,
        model: RetinaNet,
        config: TrainConfig,
        train_data: DetectionData,
        val_data: DetectionData,
        val_tiles: TiledData,
    ) -> None:
        super().__init__()
        self.model = model
        self.run_config = config
        self.assign = make_assigner(config.matching)
        self.loss = DetectionLoss(config=config.loss)
        self.postprocess_config = config.postprocess
        # In a plain holder: Lightning's weight averaging copies every attribute, and the data need not be copied.
        self.data = _DataHolder(train_data, val_data, val_tiles)
        self.watch: Watch | None = None
        self.health: torch.Tensor | None = None
        self.metrics: Metrics | None = None
        self.found: list[tuple[int, ArrayDetections]] = []
        self.results: list[dict[str, Any]] = []

    def on_train_start(self) -> None:
        """Within an epoch that a resumed run goes on with, skip the batches that were done."""
        loop = self.trainer.fit_loop
        progress: Any = loop.epoch_loop.batch_progress.current  # the fields of its kind are not declared
        done = progress.processed if loop.restarting else 0
        loader = self.trainer.train_dataloader
        assert loader is not None  # noqa: S101
        loader.batch_sampler.set_epoch(self.current_epoch, skip=done)

    def on_train_epoch_start(self) -> None:
        """Tell the sampler its epoch: Lightning does so for samplers, but not for batch samplers."""
        loader = self.trainer.train_dataloader
        assert loader is not None  # noqa: S101
        loader.batch_sampler.set_epoch(self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch; log it, its parts and the positives per image."""
        images_N3HW = batch.images_N3HW.to(memory_format=torch.channels_last)
        outputs = self.model(images_N3HW)
        targets = self.assign(outputs.anchors_A4, batch.targets, anchors_per_level=outputs.anchors_per_level)
        losses = self.loss(outputs, targets)
        self.health = health(losses, outputs)
        if self.watch is not None:
            self.watch(self, batch_idx, batch, outputs, targets, losses)
        images = len(batch.images_N3HW)
        values = {
            "loss": losses.total.detach(),
            "classification_loss": losses.classification.detach(),
            "box_loss": losses.box.detach(),
            "positives_per_image": losses.num_positives / images,
        }
        for name, value in _over_ranks(values).items():
            self.log(name, value.float(), prog_bar=name in {"loss", "positives_per_image"}, batch_size=images)
        return losses.total

    def on_after_backward(self) -> None:
        """Give all ranks the BatchNorm statistics of the first, where they are trained and not shared already.

        DDP would do so in every forward pass, those of an evaluation too, of which ranks may have different numbers.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return
        layers = [m for m in self.model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        learning = [m for m in layers if m.training and not isinstance(m, torch.nn.SyncBatchNorm)]
        buffers = [b for m in learning for b in m.buffers() if b.is_floating_point()]
        if buffers:
            together = torch.cat([b.flatten() for b in buffers])
            dist.broadcast(together, 0)
            for buffer, values in zip(buffers, torch.split(together, [b.numel() for b in buffers]), strict=True):
                buffer.copy_(values.view_as(buffer))

    def on_validation_epoch_start(self) -> None:
        """Forget the detections of the last evaluation."""
        self.found, self.results = [], []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Detect, and keep the detections for the end of the epoch."""
        outputs = self.model(batch.images_N3HW.to(memory_format=torch.channels_last))
        detections = postprocess(outputs, frames=batch.frames, config=self.postprocess_config)
        self.found += zip(batch.indices, (found.numpy() for found in detections), strict=True)

    def on_validation_epoch_end(self) -> None:
        """Evaluate the detections of all ranks on every rank, and log the COCO numbers."""
        if dist.is_available() and dist.is_initialized():
            gathered: list[list[tuple[int, ArrayDetections]]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(gathered, self.found)
            # A rank for which there was no image looked at one of another's: each counts once.
            self.found = list({index: found for rank in gathered for index, found in rank}.items())
        val = self.data.val
        found = [(val.records[number].image_id, detections) for number, detections in self._images()]
        for image_id, detections in found:
            self.results += detections_to_coco(detections, image_id=image_id, category_ids=val.category_ids)
        self.found = []
        array_D7 = detections_to_array(found, category_ids=val.category_ids)
        self.metrics = evaluate_results(val.to_coco(), array_D7)
        numbers = {k: v for k, v in self.metrics.to_json().items() if k != "per_class"}
        self.log_dict(numbers, prog_bar=False, rank_zero_only=False)

    def _images(self) -> Iterator[tuple[int, ArrayDetections]]:
        """Yield the number and the detections of every validation image, those of its tiles merged."""
        tiled, tiling = self.data.val_tiles, self.run_config.tiling
        by_image: dict[int, list[tuple[int, ArrayDetections]]] = {}
        for index, found in self.found:
            by_image.setdefault(tiled.parents[index], []).append((index, found))
        for number, parts in by_image.items():
            *cut, (_, whole) = sorted(parts, key=lambda part: part[0])
            if cut:
                record = self.data.val.records[number]
                whole = merge_tiles(
                    whole,
                    [found for _, found in cut],
                    [w for w in (tiled.data.records[index].window for index, _ in cut) if w is not None],
                    width=record.width,
                    height=record.height,
                    whole_from=tiling.whole_from,
                    config=self.postprocess_config,
                )
            yield number, whole

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, stepped with every optimiser step."""
        config = self.run_config
        images = config.batch.batch_size * config.optimiser.accumulate * self.trainer.world_size
        optimizer = make_optimizer(self.model, config, images_per_step=images)
        total = int(self.trainer.estimated_stepping_batches)
        if config.schedule.max_steps > 0:
            total = min(total, config.schedule.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(config, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the weights need to be used: classes, config, preprocessing; and the random states."""
        checkpoint[KEY] = describe_run(self.run_config, self.data.train.classes, self.data.train.category_ids)
        checkpoint["randomness"] = state_of_randomness()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the random states back; refuse a checkpoint of other classes."""
        found = tuple(checkpoint[KEY]["classes"])
        if found != self.data.train.classes:
            raise ValueError(f"the run to resume has classes {found}, the training data has {self.data.train.classes}")
        restore_randomness(checkpoint["randomness"])


def _over_ranks(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean of each over the ranks, in one exchange: of the losses it is that of the whole batch."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    together = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(together)
    return dict(zip(values, together / dist.get_world_size(), strict=True))


class _DataHolder:
    def __init__(self, train: DetectionData, val: DetectionData, val_tiles: TiledData) -> None:
        self.train = train
        self.val = val
        self.val_tiles = val_tiles

    def __deepcopy__(self, memo: dict[int, Any]) -> _DataHolder:
        return self
