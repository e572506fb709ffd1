"""One rank of a training run under torchrun: `torchrun --nproc-per-node 2 worker.py options.json out`.

The worker trains with `fit`, by default in float64, and writes the losses, the gradients before clipping, the final
weights and the evaluated images of its rank. Without torchrun, the worker is the reference: a single process whose
batches join the batches of both ranks.
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
from retinanet.train import data_module, fit, trainer
from retinanet.train.data_module import DetectionDataModule
from retinanet.train.detection_module import DetectionModule


class TwoRanksTogether(TrainBatchSampler):
    """Sampler for one process. Each batch joins the batches of both ranks."""

    def __init__(self, *, batch_size: int, **options: Any) -> None:
        super().__init__(**{**options, "batch_size": batch_size // 2, "world_size": 2})
        self.other = TrainBatchSampler(**{**options, "batch_size": batch_size // 2, "world_size": 2, "rank": 1})

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        super().set_epoch(epoch, skip=skip)
        self.other.set_epoch(epoch, skip=skip)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for first_rank, second_rank in zip(super().__iter__(), iter(self.other), strict=True):
            yield first_rank + second_rank


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    options, extra = settings["options"], settings["extra"]
    out = Path(sys.argv[2])
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    if world == 1 and not extra.get("alone"):
        data_module.TrainBatchSampler = TwoRanksTogether
        options["batch_size"] *= 2
    build_model = trainer.build_model

    def build_double_model(*arguments):  # type: ignore[no-untyped-def]
        model, config = build_model(*arguments)
        # Each rank has the BatchNorm statistics of its own batch, so they are frozen where two ranks must equal one.
        if extra.get("freeze_batchnorm", True):
            model.backbone.freeze_batchnorm()
        return (model.double() if extra.get("double", True) else model), config

    trainer.build_model = build_double_model
    if extra.get("double", True):
        transfer = DetectionDataModule.transfer_batch_to_device

        def transfer_double(self, batch, device, index):  # type: ignore[no-untyped-def]
            batch = transfer(self, batch, device, index)
            object.__setattr__(batch, "images_N3HW", batch.images_N3HW.double())
            return batch

        DetectionDataModule.transfer_batch_to_device = transfer_double
    results: dict[str, Any] = {"loss": [], "gradients": [], "positives": [], "sizes": [], "evaluated": [], "log": []}
    step, end = DetectionModule.training_step, DetectionModule.on_validation_epoch_end

    def training_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
        kill = extra.get("kill", {})
        if rank == kill.get("rank") and self.trainer.global_step == kill["step"]:
            marker = out / "killed"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        loss = step(self, batch, batch_idx)
        results["sizes"].append(len(batch))
        results["positives"].append(int(sum(len(t.boxes_G4) for t in batch.targets)))
        total = loss.detach().clone()
        if world > 1:
            dist.all_reduce(total)
        results["loss"].append(float(total) / world)
        results["log"].append(float(self.trainer.callback_metrics["loss"]))
        return loss

    def before_step(self, optimizer):  # type: ignore[no-untyped-def]
        grads = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
        results["gradients"].append(grads)

    def validation_end(self):  # type: ignore[no-untyped-def]
        own_images = [index for index, _ in self.detections]
        end(self)
        image_ids = [row["image_id"] for row in self.results]
        results["evaluated"].append((own_images, image_ids, self.metrics.to_json()["AP"]))
        results["epochs"] = self.current_epoch + 1

    modules: list[DetectionModule] = []
    init = DetectionModule.__init__

    def init_and_store(self, **arguments):  # type: ignore[no-untyped-def]
        init(self, **arguments)
        modules.append(self)

    DetectionModule.__init__ = init_and_store
    DetectionModule.training_step = training_step
    DetectionModule.on_before_optimizer_step = before_step
    DetectionModule.on_validation_epoch_end = validation_end
    result = fit(**options)
    results["weights"] = modules[0].model.state_dict()
    results["best_ap"] = result.ap
    out.mkdir(parents=True, exist_ok=True)
    torch.save(results, out / f"rank{rank}-of-{world}.pt")


if __name__ == "__main__":
    main()
