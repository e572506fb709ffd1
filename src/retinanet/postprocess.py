"""Turn network outputs into detections: threshold, top-k, decode, clip, per-class NMS, scale to original pixels.

Shape suffixes: N batch, A anchors, K classes, C candidates of an image, D detections of an image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from retinanet.boxes import clip, decode
from retinanet.ops.candidates import candidates
from retinanet.ops.nms import nms
from retinanet.types import HeadOutputs, ImageDetections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.config import PostprocessConfig
    from retinanet.images import Frame


def postprocess(outputs: HeadOutputs, *, frames: Sequence[Frame], config: PostprocessConfig) -> list[ImageDetections]:
    """Return the detections of each image, xyxy in original pixels, by descending score.

    On each feature level, the `candidates_per_level` highest scores above `score_threshold` are decoded. NMS drops a
    box whose IoU with a higher-scoring box of its class is above `nms_threshold`. The `max_detections` highest scores
    are returned. Source: arXiv 1708.02002, section 4.1, "Inference".

    Args:
        outputs: outputs of the network, of any float dtype. Boxes are decoded in float32.
        frames: original and resized size of each image of the batch.
        config: thresholds and limits.
    """
    return [
        _one_image(logits_AK, deltas_A4, outputs, frame, config)
        for logits_AK, deltas_A4, frame in zip(outputs.logits_NAK, outputs.deltas_NA4, frames, strict=True)
    ]


def _one_image(
    logits_AK: Tensor, deltas_A4: Tensor, outputs: HeadOutputs, frame: Frame, config: PostprocessConfig
) -> ImageDetections:
    # The threshold is applied to logits, so that only the candidates need a sigmoid.
    anchor_C, label_C, logit_C = candidates(
        logits_AK,
        outputs.anchors_per_level,
        threshold=score_threshold_logit(config),
        most=config.candidates_per_level,
    )
    score_C = logit_C.sigmoid()
    box_C4 = decode(deltas_A4[anchor_C].float(), outputs.anchors_A4[anchor_C])
    if config.clip_before_nms:
        box_C4 = clip(box_C4, width=frame.resized_width, height=frame.resized_height)
    keep_D = nms(box_C4, score_C, label_C, threshold=config.nms_threshold, limit=config.max_detections)
    to_original = box_C4.new_tensor([frame.width / frame.resized_width, frame.height / frame.resized_height] * 2)
    boxes_D4 = box_C4[keep_D] * to_original
    if not config.clip_before_nms:
        boxes_D4 = clip(boxes_D4, width=frame.width, height=frame.height)
        is_inside_D = (boxes_D4[:, 2:] > boxes_D4[:, :2]).all(dim=1)  # clipping makes boxes outside the image empty
        boxes_D4, keep_D = boxes_D4[is_inside_D], keep_D[is_inside_D]
    return ImageDetections(boxes_D4=boxes_D4, scores_D=score_C[keep_D], labels_D=label_C[keep_D])


def score_threshold_logit(config: PostprocessConfig) -> float:
    """Return the logit of `score_threshold`. Only higher logits can become detections."""
    probability = config.score_threshold
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))
