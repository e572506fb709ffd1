"""Measure the parts of the classification loss batch by batch, during training or on a dataset.

Shape suffixes: N batch, A anchors, K classes, S sign (positive, negative), E ease (easy, hard), L levels, B bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from retinanet.analysis.imbalance import BINS_PER_UNIT, LOWEST, SIZE_LIMITS, SIZES, Imbalance, number_of_bins
from retinanet.analysis.model_outputs import DenseBatch, dense_outputs
from retinanet.boxes import area
from retinanet.config import LossConfig, ModelConfig
from retinanet.losses import DetectionLoss
from retinanet.progress import ProgressBar, no_progress_bar
from retinanet.types import AnchorTargets, HeadOutputs, Target

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData
    from retinanet.images import Frame

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]


class ImbalanceMeter:
    """Sums up the loss of any number of batches in constant memory.

    Args:
        classes: name of each class id.
        levels: levels of the feature pyramid, as in `ModelConfig.levels`.
        loss_config: the loss to measure.
        easy_from: minimum p_t of an easy example, in (0, 1).
        loss: object with which training computes the loss of `loss_config`, if its state changes in training.

    Raises:
        ValueError: `easy_from` is out of its range.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        loss_config: LossConfig,
        levels: Sequence[int] = ModelConfig.levels,
        easy_from: float = 0.5,
        loss: DetectionLoss | None = None,
    ) -> None:
        if not 0 < easy_from < 1:
            raise ValueError(f"expected easy_from between 0 and 1, found {easy_from}")
        self.classes = tuple(classes)
        self.levels = tuple(levels)
        self.loss_config = loss_config
        self.loss = loss or DetectionLoss(config=loss_config)
        self.easy_from = easy_from
        K = len(self.classes)
        self._images = 0
        self._anchors = np.zeros(3, dtype=np.int64)
        self._objects = np.zeros(2, dtype=np.int64)
        self._examples_SE = np.zeros((2, 2), dtype=np.int64)
        self._loss_SE, self._gradient_SE = np.zeros((2, 2)), np.zeros((2, 2))
        self._squares = 0.0
        self._class_KS, self._class_gradient_KS = np.zeros((K, 2)), np.zeros((K, 2))
        self._class_positives_K = np.zeros(K, dtype=np.int64)
        L = len(self.levels)
        self._level_LS, self._level_gradient_LS = np.zeros((L, 2)), np.zeros((L, 2))
        self._level_positives_L = np.zeros(L, dtype=np.int64)
        self._size_loss, self._size_positives = np.zeros(3), np.zeros(3, dtype=np.int64)
        self._histogram_SB = np.zeros((2, number_of_bins()), dtype=np.int64)

    def add(
        self,
        outputs: HeadOutputs,
        targets: AnchorTargets,
        objects: Sequence[Target],
        frames: Sequence[Frame] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            outputs: outputs of the network; no gradient reaches the network.
            targets: targets that the assigner made from `objects`.
            objects: objects of each image.
            frames: original and resized size of each image; None leaves out the sums by object size.

        Raises:
            ValueError: the outputs have another number of levels than the meter.
        """
        if len(outputs.anchors_per_level) != len(self.levels):
            raise ValueError(
                f"expected outputs of the {len(self.levels)} levels {self.levels}, found "
                f"{len(outputs.anchors_per_level)} levels"
            )
        for n, image in enumerate(objects):
            # One image at a time keeps the temporary arrays as small as the logits of one image.
            image_outputs = HeadOutputs(
                logits_NAK=outputs.logits_NAK[n : n + 1].detach().float().requires_grad_(),
                deltas_NA4=outputs.deltas_NA4[n : n + 1].detach(),
                anchors_A4=outputs.anchors_A4,
                anchors_per_level=outputs.anchors_per_level,
            )
            image_targets = AnchorTargets(
                positive_NA=targets.positive_NA[n : n + 1],
                ignored_NA=targets.ignored_NA[n : n + 1],
                labels_NA=targets.labels_NA[n : n + 1],
                boxes_NA4=targets.boxes_NA4[n : n + 1],
                matched_NA=targets.matched_NA[n : n + 1],
            )
            self._add_image(image_outputs, image_targets, image, None if frames is None else frames[n])

    def _add_image(self, outputs: HeadOutputs, targets: AnchorTargets, image: Target, frame: Frame | None) -> None:
        with torch.enable_grad():
            loss_AK = self.loss.classification_NAK(outputs, targets)[0]
            (gradient_AK,) = (g[0].abs() for g in torch.autograd.grad(loss_AK.sum(), outputs.logits_NAK))
        loss_AK = loss_AK.detach()
        logits_AK = outputs.logits_NAK[0].detach()
        positive_A, ignored_A = targets.positive_NA[0], targets.ignored_NA[0]
        a = torch.nonzero(positive_A).squeeze(1)
        k = targets.labels_NA[0, a]
        negative_AK = (~ignored_A)[:, None].repeat(1, loss_AK.shape[1])
        negative_AK[a, k] = False

        self._images += 1
        self._anchors += [len(a), int(ignored_A.sum()), len(positive_A) - len(a) - int(ignored_A.sum())]
        reached = torch.unique(targets.matched_NA[0, a])
        objects = int((~image.crowd_G).sum())
        self._objects += [objects, objects - len(reached)]

        hard_above = math.log((1 - self.easy_from) / self.easy_from)  # minimum wrong logit of a hard example
        positives = (-logits_AK[a, k], loss_AK[a, k], gradient_AK[a, k])
        negatives = (logits_AK[negative_AK], loss_AK[negative_AK], gradient_AK[negative_AK])
        for s, (wrong, loss, gradient) in enumerate((positives, negatives)):
            hard = wrong > hard_above
            for e, chosen in enumerate((~hard, hard)):
                self._examples_SE[s, e] += int(chosen.sum())
                self._loss_SE[s, e] += _sum(loss[chosen])
                self._gradient_SE[s, e] += _sum(gradient[chosen])
            self._histogram_SB[s] += histogram(wrong)
        self._squares += _sum(negatives[2] ** 2)

        per_level = list(outputs.anchors_per_level)
        for total_KS, level_LS, values_AK in (
            (self._class_KS, self._level_LS, loss_AK),
            (self._class_gradient_KS, self._level_gradient_LS, gradient_AK),
        ):
            positive_AK = torch.zeros_like(values_AK)
            positive_AK[a, k] = values_AK[a, k]
            negative = values_AK - positive_AK
            for s, part_AK in enumerate((positive_AK, negative)):
                total_KS[:, s] += part_AK.double().sum(0).cpu().numpy()
                level_LS[:, s] += [_sum(part) for part in torch.split(part_AK.sum(1), per_level)]
        self._class_positives_K += torch.bincount(k, minlength=len(self.classes)).cpu().numpy()
        self._level_positives_L += [int(part.sum()) for part in torch.split(positive_A, per_level)]
        if frame is not None:
            scale = (frame.resized_width / frame.width) * (frame.resized_height / frame.height)
            size_P = torch.bucketize(
                area(targets.boxes_NA4[0, a]) / scale, torch.tensor(SIZE_LIMITS, device=a.device), right=True
            )
            for i in range(len(SIZES)):
                self._size_positives[i] += int((size_P == i).sum())
                self._size_loss[i] += _sum(positives[1][size_P == i])

    def result(self) -> Imbalance:
        """Return the sums over all batches that were added."""
        positive, ignored, negative = (int(count) for count in self._anchors)
        return Imbalance(
            classes=self.classes,
            levels=self.levels,
            images=self._images,
            easy_from=self.easy_from,
            loss_config=self.loss_config,
            positive_anchors=positive,
            ignored_anchors=ignored,
            negative_anchors=negative,
            objects=int(self._objects[0]),
            unreached=int(self._objects[1]),
            examples_SE=self._examples_SE.copy(),
            loss_SE=self._loss_SE.copy(),
            gradient_SE=self._gradient_SE.copy(),
            squares=self._squares,
            class_loss_KS=self._class_KS.copy(),
            class_gradient_KS=self._class_gradient_KS.copy(),
            class_positives_K=self._class_positives_K.copy(),
            level_loss_LS=self._level_LS.copy(),
            level_gradient_LS=self._level_gradient_LS.copy(),
            level_positives_L=self._level_positives_L.copy(),
            size_loss=self._size_loss.copy(),
            size_positives=self._size_positives.copy(),
            histogram_SB=self._histogram_SB.copy(),
        )


def measure(
    trained: LoadedModel,
    data: DetectionData,
    *,
    batch_size: int = 8,
    easy_from: float = 0.5,
    loss_config: LossConfig | None = None,
    progress: ProgressBar = no_progress_bar,
    further: Sequence[Callable[[DenseBatch], None]] = (),
) -> Imbalance:
    """Measure the imbalance of a trained network on a dataset, without augmentation.

    Args:
        trained: network with its settings, see `model_outputs.load_for_analysis`.
        data: images and objects, loaded with `classes=trained.classes`.
        batch_size: number of images per batch.
        easy_from: minimum p_t of an easy example, in (0, 1).
        loss_config: the loss to measure; by default the loss that the network was trained with.
        progress: function that opens a progress bar.
        further: functions of further measurements that receive each batch, so that the network runs only once.
    """
    meter = ImbalanceMeter(
        classes=trained.classes,
        levels=trained.model.config.levels,
        loss_config=loss_config or trained.loss_config,
        easy_from=easy_from,
        loss=trained.make_loss() if loss_config is None else None,
    )
    for dense in dense_outputs(trained, data, batch_size=batch_size, progress=progress):
        meter.add(dense.outputs, dense.targets, dense.batch.targets, dense.batch.frames)
        for add in further:
            add(dense)
    return meter.result()


def histogram(logits: Tensor) -> Ints:
    """Return the number of logits in each bin, (B,) int64; logits beyond the range count in the outermost bins."""
    bins = ((logits.double() - LOWEST) * BINS_PER_UNIT).floor().clamp(0, number_of_bins() - 1).long()
    counts: Ints = torch.bincount(bins.flatten(), minlength=number_of_bins()).cpu().numpy()
    return counts


def _sum(values: Tensor) -> float:
    return float(values.double().sum())
