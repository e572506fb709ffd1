"""Turn network outputs into detections: threshold, top-k, decode, clip, NMS, scale to original pixels.

Shape suffixes: N batch, A anchors, K classes, C candidates of an image, F first candidates of an image by falling
score, D detections of an image.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Final

import torch

from retinanet.boxes import clip, decode
from retinanet.ops.candidates import batch_candidates, candidates
from retinanet.ops.nms import nms
from retinanet.types import HeadOutputs, ImageDetections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.config import PostprocessConfig
    from retinanet.images import Frame

_FIRST: Final = 4
"""Number of candidates per detection that a GPU sends to the CPU for NMS."""


def postprocess(outputs: HeadOutputs, *, frames: Sequence[Frame], config: PostprocessConfig) -> list[ImageDetections]:
    """Return the detections of each image, xyxy in original pixels, by descending score. The detections are on the CPU.

    On each feature level, the `candidates_per_level` highest scores above `score_threshold` are decoded. NMS drops a
    box whose IoU with a higher-scoring box of its class is above `nms_threshold`. With `agnostic_nms`, NMS compares the
    boxes of all classes. The `max_detections` highest scores are returned. Source: arXiv 1708.02002, section 4.1,
    "Inference".

    Args:
        outputs: outputs of the network, of any float dtype. Boxes are decoded in float32.
        frames: original and resized size of each image of the batch.
        config: thresholds and limits.

    Raises:
        ValueError: the number of frames is not the number of images.
    """
    if len(frames) != len(outputs.logits_NAK):
        raise ValueError(f"expected a frame for each of {len(outputs.logits_NAK)} images, found {len(frames)} frames")
    if outputs.logits_NAK.device.type != "cpu":
        return _postprocess_on_device(outputs, frames, config)
    threshold = score_threshold_logit(config)
    detections = []
    for logits_AK, deltas_A4, frame in zip(outputs.logits_NAK, outputs.deltas_NA4, frames, strict=True):
        # The threshold is applied to logits, so that only the candidates need a sigmoid.
        anchor_C, label_C, logit_C = candidates(
            logits_AK, outputs.anchors_per_level, threshold=threshold, most=config.candidates_per_level
        )
        box_C4 = decode(deltas_A4[anchor_C].float(), outputs.anchors_A4[anchor_C])
        kept = _suppress(box_C4, logit_C.sigmoid(), label_C, frame, config)
        detections.append(_in_original_pixels(*kept, frame, config))
    return detections


def _postprocess_on_device(
    outputs: HeadOutputs, frames: Sequence[Frame], config: PostprocessConfig
) -> list[ImageDetections]:
    """Return the detections of a batch on a GPU, with a fixed number of kernels and one copy to the CPU.

    The GPU finds, sorts and decodes the candidates of all images. The CPU suppresses the first ones of each image, with
    at most 4 x `max_detections`^2 comparisons. NMS on the GPU would wait for the GPU once more, because the number of
    kept boxes depends on values. It would compare boxes of different images. It would keep images and classes apart by
    shifted boxes, whose IoUs are rounded in another way than those of the CPU.

    A second copy is necessary only if too few of the first candidates are kept, or if a score is NaN.
    """
    anchor_NC, label_NC, score_NC = _sorted_candidates(outputs, config)
    C = score_NC.shape[1]
    detections: dict[int, ImageDetections] = {}
    for length in (_FIRST * config.max_detections, C):
        anchor_NF, label_NF, score_NF = anchor_NC[:, :length], label_NC[:, :length], score_NC[:, :length]
        deltas_NF4 = outputs.deltas_NA4.gather(1, anchor_NF.unsqueeze(2).expand(-1, -1, 4)).float()
        box_NF4 = decode(deltas_NF4, outputs.anchors_A4[anchor_NF])
        # float32 holds class ids below 2^24 exactly.
        rows_NF6 = torch.cat([box_NF4, score_NF.unsqueeze(2), label_NF.unsqueeze(2).float()], dim=2).cpu()
        if rows_NF6[:, :, 4].isnan().any():
            logits_NAK = outputs.logits_NAK.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            return _postprocess_on_device(dataclasses.replace(outputs, logits_NAK=logits_NAK), frames, config)
        for n in set(range(len(frames))) - detections.keys():
            count = int((rows_NF6[n, :, 4] >= 0).sum())
            box_F4, score_F, label_F = torch.split(rows_NF6[n, :count], [4, 1, 1], dim=1)
            kept = _suppress(box_F4, score_F.squeeze(1), label_F.squeeze(1).long(), frames[n], config)
            if count < length or length >= C or len(kept[0]) == config.max_detections:
                detections[n] = _in_original_pixels(*kept, frames[n], config)
        if len(detections) == len(frames):
            break
    return [detections[n] for n in range(len(frames))]


def _sorted_candidates(outputs: HeadOutputs, config: PostprocessConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return anchor, class id and score of the candidates of each image by falling score, each (N, C).

    A score is -1 at places without a candidate. All scores of an image are NaN if one of its logits is NaN.
    """
    anchor_NC, label_NC, logit_NC = batch_candidates(
        outputs.logits_NAK,
        outputs.anchors_per_level,
        threshold=score_threshold_logit(config),
        most=config.candidates_per_level,
    )
    score_NC = logit_NC.sigmoid().masked_fill(logit_NC == -torch.inf, -1.0)
    score_NC, order_NC = score_NC.sort(dim=1, descending=True, stable=True)
    return anchor_NC.gather(1, order_NC), label_NC.gather(1, order_NC), score_NC


def _suppress(
    box_C4: Tensor, score_C: Tensor, label_C: Tensor, frame: Frame, config: PostprocessConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes in input pixels, scores and class ids that NMS keeps, at most `max_detections`."""
    if config.clip_before_nms:
        box_C4 = clip(box_C4, width=frame.resized_width, height=frame.resized_height)
    group_C = None if config.agnostic_nms else label_C
    keep_D = nms(box_C4, score_C, group_C, threshold=config.nms_threshold, limit=config.max_detections)
    return box_C4[keep_D], score_C[keep_D], label_C[keep_D]


def _in_original_pixels(
    box_D4: Tensor, score_D: Tensor, label_D: Tensor, frame: Frame, config: PostprocessConfig
) -> ImageDetections:
    """Return detections whose boxes were in input pixels."""
    boxes_D4 = box_D4 * box_D4.new_tensor([frame.width / frame.resized_width, frame.height / frame.resized_height] * 2)
    if not config.clip_before_nms:
        boxes_D4 = clip(boxes_D4, width=frame.width, height=frame.height)
        is_inside_D = (boxes_D4[:, 2:] > boxes_D4[:, :2]).all(dim=1)  # clipping makes boxes outside the image empty
        boxes_D4, score_D, label_D = boxes_D4[is_inside_D], score_D[is_inside_D], label_D[is_inside_D]
    return ImageDetections(boxes_D4=boxes_D4, scores_D=score_D, labels_D=label_D)


def score_threshold_logit(config: PostprocessConfig) -> float:
    """Return the logit of `score_threshold`. Only higher logits can become detections."""
    probability = config.score_threshold
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
