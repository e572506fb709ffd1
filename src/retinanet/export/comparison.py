"""Compare an exported model with its checkpoint: detections, or outputs before non-maximum suppression.

Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from retinanet import boxes
from retinanet.export import parity
from retinanet.images import prepare
from retinanet.predict.torch_detector import Detector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.config import ImageConfig
    from retinanet.images import Frame, Scaled
    from retinanet.predict.runtime_detector import RuntimeDetector


def compare_runtime(loaded: LoadedModel, exported: RuntimeDetector, images: Sequence[Path]) -> list[parity.Difference]:
    """Return the differences between the detections, or between the dense outputs if there are no detections.

    With tuned thresholds, the detections above them are compared, too: those that the graph itself selects.
    """
    if not exported.description.raw:
        original = Detector(model=loaded.model, info=loaded, device="cpu")
        differences = parity.compare(original, exported, images)
        if loaded.tuned is not None:
            exported.uses_tuned_thresholds = True
            differences += parity.compare(original, exported, images, tuned=True)
            exported.uses_tuned_thresholds = False
        if any(d.compared or not d.agrees for d in differences):
            return differences
    # Without detections: the file has no decoding (--raw), or the network detects nothing in these images.

    def dense(config: ImageConfig, scaled: Sequence[Scaled]) -> tuple[Any, Any]:
        with parity.use_image_config(config, exported):
            outputs = exported.dense_batch(scaled)
        scores, rows = [], []
        for output in outputs:
            frame = output.frame
            to_input = [frame.resized_width / frame.width, frame.resized_height / frame.height] * 2
            levels = output.levels
            scores.append(np.concatenate([o.scores_HWCK.reshape(-1, o.scores_HWCK.shape[-1]) for o in levels]))
            rows.append(np.concatenate([o.boxes_HWC4.reshape(-1, 4) for o in levels]) * np.array(to_input, np.float32))
        return np.stack(scores), np.stack(rows)

    return compare_dense(loaded, dense, images, loaded.image_config)


def compare_dense(
    loaded: LoadedModel, exported: parity.DenseFunction, images: Sequence[Path], image_config: ImageConfig
) -> list[parity.Difference]:
    """Return the differences between the scores and boxes of all anchors, per image size and batch size."""
    model = loaded.model.to(memory_format=torch.channels_last)

    def original(config: ImageConfig, scaled: Sequence[Scaled]) -> tuple[Any, Any]:
        pixels, frames = prepare(scaled, config)
        with torch.inference_mode():
            outputs = model(torch.from_numpy(pixels))
            boxes_NA4 = boxes.decode(outputs.deltas_NA4, outputs.anchors_A4)
            return outputs.logits_NAK.sigmoid().numpy(), clip_to_images(boxes_NA4, frames)

    threshold = loaded.postprocess_config.score_threshold
    return parity.compare_dense(original, exported, images, image_config, score_threshold=threshold)


def clip_to_images(boxes_NA4: torch.Tensor, frames: Sequence[Frame]) -> npt.NDArray[np.float32]:
    """Return the boxes clipped to the resized images, as an array NA4."""
    rows = [
        boxes.clip(boxes_A4, width=frame.resized_width, height=frame.resized_height).numpy()
        for boxes_A4, frame in zip(boxes_NA4, frames, strict=True)
    ]
    return np.stack(rows)
