"""One rank of a run under torchrun: `torchrun --nproc-per-node 2 worker.py options.json out` (or alone, as reference).

It trains through `fit`, in float64 unless told otherwise, and writes what every rank saw: losses, gradients before
clipping, final weights, running average, random state, images. Alone, it takes the batches of two ranks together.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from retinanet.data import TrainBatchSampler
from retinanet.train import data_module, fit
from retinanet.train import trainer as run
from retinanet.train.data_module import DetectionDataModule
from retinanet.train.detection_module import DetectionModule


class TwoRanksTogether(TrainBatchSampler):
    """The batches of both ranks as one: what a single process must take to do the same."""

    def __init__(self, *, batch_size: int, **options: Any) -> None:
        super().__init__(**{**options, "batch_size": batch_size // 2, "world_size": 2})
        self.other = TrainBatchSampler(**{**options, "batch_size": batch_size // 2, "world_size": 2, "rank": 1})

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        super().set_epoch(epoch, skip=skip)
        self.other.set_epoch(epoch, skip=skip)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for mine, others in zip(super().__iter__(), iter(self.other), strict=True):
            yield mine + others


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    options, extra = given["options"], given["extra"]
    out = Path(sys.argv[2])
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    if world == 1 and not extra.get("alone"):
        data_module.TrainBatchSampler = TwoRanksTogether
        options["batch_size"] *= 2
    build = run.build

    def built(*arguments):  # type: ignore[no-untyped-def]
        model, config = build(*arguments)
        # BatchNorm's statistics are those of a rank's own batch: frozen where two must equal one.
        if extra.get("freeze_batchnorm", True):
            model.backbone.freeze_batchnorm()
        return (model.double() if extra.get("double", True) else model), config

    run.build = built
    if extra.get("double", True):
        move = DetectionDataModule.transfer_batch_to_device

        def moved(self, batch, device, index):  # type: ignore[no-untyped-def]
            batch = move(self, batch, device, index)
            object.__setattr__(batch, "images_N3HW", batch.images_N3HW.double())
            return batch

        DetectionDataModule.transfer_batch_to_device = moved
    seen: dict[str, Any] = {"loss": [], "gradients": [], "positives": [], "sizes": [], "evaluated": [], "log": []}
    step, end = DetectionModule.training_step, DetectionModule.on_validation_epoch_end

    def training_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
        at = extra.get("kill", {})
        if rank == at.get("rank") and self.trainer.global_step == at["step"]:
            marker = out / "killed"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        loss = step(self, batch, batch_idx)
        seen["sizes"].append(len(batch))
        seen["positives"].append(int(sum(len(t.boxes_G4) for t in batch.targets)))
        total = loss.detach().clone()
        if world > 1:
            dist.all_reduce(total)
        seen["loss"].append(float(total) / world)
        seen["log"].append(float(self.trainer.callback_metrics["loss"]))
        return loss

    def before_step(self, optimizer):  # type: ignore[no-untyped-def]
        grads = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
        seen["gradients"].append(grads)

    def validation_end(self):  # type: ignore[no-untyped-def]
        mine = [index for index, _ in self.found]
        end(self)
        seen["evaluated"].append((mine, [row["image_id"] for row in self.results], self.metrics.to_json()["AP"]))
        seen["epochs"] = self.current_epoch + 1

    module: list[DetectionModule] = []
    init = DetectionModule.__init__

    def remember(self, **arguments):  # type: ignore[no-untyped-def]
        init(self, **arguments)
        module.append(self)

    DetectionModule.__init__ = remember
    DetectionModule.training_step = training_step
    DetectionModule.on_before_optimizer_step = before_step
    DetectionModule.on_validation_epoch_end = validation_end
    result = fit(**options)
    seen["weights"] = module[0].model.state_dict()
    seen["best_ap"] = result.ap
    out.mkdir(parents=True, exist_ok=True)
    torch.save(seen, out / f"rank{rank}-of-{world}.pt")


if __name__ == "__main__":
    main()
