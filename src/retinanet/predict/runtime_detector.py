"""The detector that runs an exported model, without torch. Boxes are xyxy in original pixels.

Shape suffixes: N batch, A anchors of a level, K classes, C anchors of a position, D detections of an image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinanet.config import ImageConfig, PostprocessConfig
from retinanet.images import Frame, Scaled, prepare_pixels
from retinanet.predict.batches import Pixels, Source
from retinanet.predict.dense import DenseOutputs, level_outputs
from retinanet.predict.detector import BaseDetector
from retinanet.predict.sources import to_source
from retinanet.runtime.description import (
    CLASS_THRESHOLDS,
    DETECTIONS,
    FRAMES,
    IMAGES,
    Description,
    ExportError,
    dense_names,
)
from retinanet.runtime.engines import Engine, OnnxEngine, OpenVinoEngine
from retinanet.types import ArrayDetections


class RuntimeDetector(BaseDetector):
    """A detector that runs an exported model without torch. Several threads may call it at once.

    Args:
        engine: runtime with the loaded graph.
        description: description of the exported model.
    """

    uses_tuned_thresholds: bool = False
    """Whether the graph applies the tuned thresholds, as it does by default for other callers. `stream` applies them to
    the merged detections instead, because tiles and test-time augmentation need the detections below them."""

    def __init__(self, *, engine: Engine, description: Description) -> None:
        super().__init__(description, images_per_call=1 if engine.on_cpu else None)
        self.engine = engine
        self.device = engine.device
        self.description = description
        if not description.raw:
            self.fixed_agnostic_nms = description.postprocess_config.agnostic_nms

    @classmethod
    def from_file(
        cls, path: str | Path, *, device: str = "auto", threads: int = 0, precision: str | None = None
    ) -> RuntimeDetector:
        """Return the detector of a file that `retinanet export` wrote.

        Args:
            path: .onnx file, or OpenVINO .xml file with its .bin file beside it.
            device: auto (CUDA if ONNX Runtime can start it, otherwise the CPU), cpu, cuda, or an OpenVINO device name.
            threads: number of threads of one call; 0: all cores.
            precision: float32 or bf16, for OpenVINO only; None: the hint in the file.

        Raises:
            ExportError: `retinanet export` did not write the file, or another tool changed its inputs or outputs.
            ConfigError: the device is not available.
        """
        path = Path(path)
        engine: Engine
        if path.suffix.lower() == ".xml":
            engine = OpenVinoEngine(path, device=device, threads=threads, precision=precision)
        else:
            engine = OnnxEngine(path, device=device, threads=threads)
        description = Description.from_json(engine.description, str(path))
        description.check_graph(engine.inputs, engine.outputs, str(path))
        return cls(engine=engine, description=description)

    def dense(self, source: Source | Scaled) -> DenseOutputs:
        """Return the predictions at every position of every feature level for one image: see `BaseDetector.dense`.

        Raises:
            ImageError: the image cannot be decoded.
        """
        if not isinstance(source, Scaled):
            source = self._decode(to_source(source), self.image_config)
        return self.dense_batch([source])[0]

    def dense_batch(self, images: Sequence[Scaled]) -> list[DenseOutputs]:
        """Return the predictions of every feature level for decoded images. The graph processes them as one batch.

        Images of several shapes are padded to the largest, which changes their predictions: see `exported-model.md`.
        """
        pixels_N3HW, frames = self._pixels(images, self.image_config)
        about = self.description
        inputs = self._inputs(pixels_N3HW, frames, self.postprocess_config)
        outputs = self.engine.run(dense_names(about.levels), inputs)
        dense_outputs = []
        for n, frame in enumerate(frames):
            levels = []
            for i, (level, cells) in enumerate(zip(about.levels, about.cells, strict=True)):
                logits_AK, deltas_A4 = (np.asarray(out[n], np.float32) for out in outputs[2 * i : 2 * i + 2])
                size, style = pixels_N3HW.shape[2:], about.anchor_style
                cells_C4 = np.array(cells, np.float32)
                levels.append(level_outputs(level, cells_C4, logits_AK, deltas_A4, size, frame, style=style))
            dense_outputs.append(DenseOutputs(frame=frame, levels=tuple(levels)))
        return dense_outputs

    def _prepare(self, image: Image.Image | Scaled, config: ImageConfig) -> tuple[Pixels, Frame]:
        """Return the pixels without normalisation, which is part of the graph."""
        pixels_N3HW, frames = self._pixels([image], config)
        return pixels_N3HW[0], frames[0]

    def _pixels(self, images: Sequence[Image.Image | Scaled], config: ImageConfig) -> tuple[Pixels, list[Frame]]:
        pixels_N3HW, frames = prepare_pixels(images, config)
        if self.description.uint8:
            return pixels_N3HW, frames
        return np.multiply(pixels_N3HW, np.float32(1 / 255), dtype=np.float32), frames

    def _inputs(
        self, pixels_N3HW: Pixels, frames: Sequence[Frame], config: PostprocessConfig
    ) -> dict[str, npt.NDArray[Any]]:
        inputs: dict[str, npt.NDArray[Any]] = {IMAGES: pixels_N3HW, FRAMES: np.array(frames, np.float32)}
        if not self.description.raw:
            inputs |= dataclasses.replace(self.description, postprocess_config=config).threshold_inputs()
            if not self.uses_tuned_thresholds and CLASS_THRESHOLDS in inputs:
                inputs[CLASS_THRESHOLDS] = np.zeros_like(inputs[CLASS_THRESHOLDS])
        return inputs

    def _infer(self, images_N3HW: Pixels, frames: Sequence[Frame], config: PostprocessConfig) -> list[ArrayDetections]:
        if self.description.raw:
            raise ExportError(
                "this model was exported with --raw: it returns logits and offsets, not detections. "
                "Export the checkpoint without --raw"
            )
        self.check_nms(config)
        outputs = self.engine.run(DETECTIONS, self._inputs(images_N3HW, frames, config))
        return [
            ArrayDetections(
                boxes_D4=np.asarray(boxes[:count], np.float32),
                scores_D=np.asarray(scores[:count], np.float32),
                labels_D=np.asarray(labels[:count], np.int64),
            )
            for boxes, scores, labels, count in zip(*outputs, strict=True)
        ]
