"""Lightning module: one training step and one validation step.

The network, the loss and the decoding of boxes remain three separate objects. Shape suffixes: N batch, A anchors,
K classes, D detections, H, W.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import torch.distributed as dist

from retinanet.analysis.model_outputs import run_by_shape
from retinanet.checkpoint.loaded_model import KEY, LOSS_STATE, describe_run
from retinanet.evaluate import Metrics, detections_to_array, detections_to_coco, evaluate_results
from retinanet.evaluate.coco import COCO_MAX_DETECTIONS, SUMMARY
from retinanet.losses import DetectionLoss
from retinanet.matching import make_assigner
from retinanet.postprocess import postprocess
from retinanet.predict.merge import merge_tiles
from retinanet.train.nonfinite import finite_check
from retinanet.train.optimisation import GROUP_OPTIONS, lr_factor, make_optimizer, planned_lr_factor, set_group_options
from retinanet.train.random_state import get_random_state, set_random_state
from retinanet.train.resume import fingerprint
from retinanet.train.validation_loss import CollectedLosses, validation_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retinanet.analysis.model_outputs import DenseBatch
    from retinanet.config import TrainConfig
    from retinanet.data import Batch, DetectionData, TiledData
    from retinanet.losses import DetectionLosses
    from retinanet.model import RetinaNet
    from retinanet.train.time_plan import TimePlan
    from retinanet.types import ArrayDetections

    StepObserver = Callable[["DetectionModule", int, list[DenseBatch], DetectionLosses], None]


class DetectionModule(L.LightningModule):
    """Connect the network to the loss, the optimiser and the evaluation.

    Args:
        model: network to train.
        config: options of the training run.
        train_data: training data, the source of class names and of file names in messages.
        val_data: validation data, the ground truth of the evaluation.
        val_tiles: images of the validation loader: `val_data`, cut into tiles if `config` requires tiles.
        time_plan: plan of a training run with a time budget.
    """

    def __init__(
        self,
        *,
        model: RetinaNet,
        config: TrainConfig,
        train_data: DetectionData,
        val_data: DetectionData,
        val_tiles: TiledData,
        time_plan: TimePlan | None = None,
    ) -> None:
        super().__init__()
        self.time_plan = _Shared(time_plan)
        self.model = model
        self.run_config = config
        self.assigner = make_assigner(config.matching)
        self.loss = DetectionLoss(config=config.loss)
        self.postprocess_config = config.postprocess
        # Lightning's weight averaging copies every attribute of the module. The holder prevents copies of the data.
        self.data = _DataHolder(train_data, val_data, val_tiles)
        self.groups: list[dict[str, float]] = []
        self.is_resumed = False
        self.step_observer: StepObserver | None = None
        self.finite_check: torch.Tensor | None = None
        self.step_values: dict[str, torch.Tensor] = {}
        """Loss, its two parts and positives per image of the last batch, mean over the ranks, on the device."""
        self.metrics: Metrics | None = None
        self.detections: list[tuple[int, ArrayDetections]] = []
        self.image_losses = CollectedLosses()
        self.results: list[dict[str, Any]] = []

    def on_train_start(self) -> None:
        """Skip the batches already used if the training run is resumed in the middle of an epoch.

        The learning rates and the weight decay of the options replace those that the optimiser's state has restored.
        """
        loop = self.trainer.fit_loop
        progress: Any = loop.epoch_loop.batch_progress.current  # Lightning declares a type without these fields
        batches_done = progress.processed if loop.restarting else 0
        self._start_epoch(skip=batches_done)
        if self.is_resumed:
            set_group_options(self.trainer.optimizers[0], self.trainer.lr_scheduler_configs[0].scheduler, self.groups)

    def on_train_epoch_start(self) -> None:
        """Set the epoch of the batch sampler: Lightning sets the epoch of samplers, but not of batch samplers."""
        self._start_epoch(skip=0)

    def _start_epoch(self, *, skip: int) -> None:
        """Set the epoch of the batch sampler, and leave out its first `skip` batches."""
        loader = self.trainer.train_dataloader
        assert loader is not None  # noqa: S101
        sampler = loader.batch_sampler
        plan = self.time_plan.value
        if plan is not None and plan.planned_epochs is not None:
            sampler.combine_epochs = max(0, plan.planned_epochs - self.run_config.augmentation.close_augment)
        # The data may have become smaller since the checkpoint.
        sampler.set_epoch(self.current_epoch, skip=min(skip, sampler.batches_per_epoch - 1))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch, and log the loss, its two parts and the number of positives per image."""
        parts = run_by_shape(self.model, batch, self.assigner, divisor=self.run_config.image.size_divisor)
        losses = self.loss.over_parts([(part.outputs, part.targets) for part in parts])
        self.finite_check = finite_check(losses, [part.outputs for part in parts])
        if self.step_observer is not None:
            self.step_observer(self, batch_idx, parts, losses)
        images = len(batch.images_N3HW)
        values = {
            "loss": losses.total.detach(),
            "classification_loss": losses.classification.detach(),
            "box_loss": losses.box.detach(),
            "positives_per_image": losses.num_positives / images,
        }
        self.step_values = {name: value.float() for name, value in _mean_over_ranks(values).items()}
        # Lightning reads each value of a user's progress bar in every step, and a GPU waits for each reading.
        has_bar = self.trainer.progress_bar_callback is not None
        self.log_dict(self.step_values, prog_bar=has_bar, batch_size=images)
        return losses.total

    def on_after_backward(self) -> None:
        """Copy the BatchNorm statistics of rank 0 to all ranks, for layers that are trained and not synchronised.

        DDP could copy the statistics itself, but in every forward pass. Ranks may have different numbers of forward
        passes in an evaluation, and would then wait for each other forever.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return
        layers = [m for m in self.model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        trained = [m for m in layers if m.training and not isinstance(m, torch.nn.SyncBatchNorm)]
        buffers = [b for m in trained for b in m.buffers() if b.is_floating_point()]
        if buffers:
            all_values = torch.cat([b.flatten() for b in buffers])
            dist.broadcast(all_values, 0)
            for buffer, values in zip(buffers, torch.split(all_values, [b.numel() for b in buffers]), strict=True):
                buffer.copy_(values.view_as(buffer))

    def on_validation_epoch_start(self) -> None:
        """Delete the detections and losses of the previous evaluation."""
        self.detections, self.results, self.image_losses = [], [], CollectedLosses()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Detect objects and compute the losses, and store both for the evaluation at the end of the epoch."""
        for part in run_by_shape(self.model, batch, self.assigner, divisor=self.run_config.image.size_divisor):
            self.image_losses.add(part.batch.indices, self.loss.per_image([(part.outputs, part.targets)]))
            per_image = postprocess(part.outputs, frames=part.batch.frames, config=self.postprocess_config)
            self.detections += zip(part.batch.indices, (detections.numpy() for detections in per_image), strict=True)

    def on_validation_epoch_end(self) -> None:
        """Evaluate the detections of all ranks on every rank, and log the COCO numbers and the validation losses."""
        loss_rows = self.image_losses.rows()
        if dist.is_available() and dist.is_initialized():
            gathered: list[Any] = [None for _ in range(dist.get_world_size())]
            dist.all_gather_object(gathered, (self.detections, loss_rows))
            # A rank without images of its own evaluates image 0, too. The dictionary counts each image once.
            self.detections = list({index: found for rank, _ in gathered for index, found in rank}.items())
            loss_rows = [row for _, rank in gathered for row in rank]
        val = self.data.val
        by_image = [(val.records[number].image_id, detections) for number, detections in self._merged_detections()]
        for image_id, detections in by_image:
            self.results += detections_to_coco(detections, image_id=image_id, category_ids=val.category_ids)
        self.detections = []
        array_D7 = detections_to_array(by_image, category_ids=val.category_ids)
        limit = max(COCO_MAX_DETECTIONS, self.postprocess_config.max_detections)
        self.metrics = evaluate_results(val.to_coco(), array_D7, max_detections=limit)
        numbers = {name: getattr(self.metrics, name) for name in SUMMARY}
        numbers |= validation_losses(loss_rows, self.loss)
        self.log_dict(numbers, prog_bar=False, rank_zero_only=False)

    def _merged_detections(self) -> Iterator[tuple[int, ArrayDetections]]:
        """Yield the index of each validation image and its detections, with the detections of its tiles merged."""
        tiled, tiling = self.data.val_tiles, self.run_config.tiling
        by_image: dict[int, list[tuple[int, ArrayDetections]]] = {}
        for index, detections in self.detections:
            by_image.setdefault(tiled.parents[index], []).append((index, detections))
        for number, parts in by_image.items():
            *tiles, (_, whole) = sorted(parts, key=lambda part: part[0])
            if tiles:
                record = self.data.val.records[number]
                whole = merge_tiles(
                    whole,
                    [detections for _, detections in tiles],
                    [w for w in (tiled.data.records[index].window for index, _ in tiles) if w is not None],
                    width=record.width,
                    height=record.height,
                    whole_from=tiling.whole_from,
                    config=self.postprocess_config,
                )
            yield number, whole

    def configure_optimizers(self) -> Any:
        """Return the optimiser and the learning-rate schedule, which advances with each optimiser step."""
        config = self.run_config
        images = config.batch.batch_size * config.optimiser.accumulate * self.trainer.world_size
        optimizer = make_optimizer(self.model, config, images_per_step=images)
        self.groups = [{name: group[name] for name in GROUP_OPTIONS} for group in optimizer.param_groups]
        if (plan := self.time_plan.value) is not None:
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, planned_lr_factor(config, plan))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        total = int(self.trainer.estimated_stepping_batches)
        if config.schedule.max_steps > 0:
            total = min(total, config.schedule.max_steps)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(config, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Set the learning rate of the next step. A time budget first measures the step that ends here."""
        if (plan := self.time_plan.value) is not None:
            plan.end_step(self.trainer.global_step)
        scheduler.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add classes, options and preprocessing, which users of the weights need; and what only a resume needs.

        The state of the loss is kept apart from the weights. Analyses of the trained network use it, too.
        """
        checkpoint[KEY] = describe_run(self.run_config, self.data.train.classes, self.data.train.category_ids)
        checkpoint["data"] = self.data.fingerprints
        checkpoint["randomness"] = get_random_state()
        checkpoint[LOSS_STATE] = self.loss.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the random states and the state of the loss, which checkpoints of earlier versions lack."""
        self.is_resumed = True
        set_random_state(checkpoint["randomness"])
        self.loss.load_state_dict(checkpoint.get(LOSS_STATE, {}))


def _mean_over_ranks(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean of each value over the ranks, with one exchange. Mean losses are losses of the whole batch."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    stacked = torch.stack([value.float() for value in values.values()])
    dist.all_reduce(stacked)
    return dict(zip(values, stacked / dist.get_world_size(), strict=True))


class _Shared:
    """Hold an object. A deep copy returns the same holder, as for `_DataHolder`."""

    def __init__(self, value: TimePlan | None) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


class _DataHolder:
    """Hold the data of a training run. A deep copy returns the same object."""

    def __init__(self, train: DetectionData, val: DetectionData, val_tiles: TiledData) -> None:
        self.train = train
        self.val = val
        self.val_tiles = val_tiles

    @cached_property
    def fingerprints(self) -> dict[str, Any]:
        """Fingerprints of training and validation data, which a resumed training run compares."""
        return {"train": fingerprint(self.train), "val": fingerprint(self.val)}

    def __deepcopy__(self, memo: dict[int, Any]) -> _DataHolder:
        return self
