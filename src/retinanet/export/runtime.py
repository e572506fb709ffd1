"""Exported models without torch: ONNX Runtime or OpenVINO, numpy, Pillow and supervision.

Boxes are xyxy in original pixels. Shape suffixes: N batch, H, W (of the input, or of a level), A anchors of a level,
C anchors of a position, K classes, D detections of a picture.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from retinanet.config import ConfigError, ImageConfig, ModelConfig, PostprocessConfig
from retinanet.detector import BaseDetector, Batch, Pixels, Source
from retinanet.export.format import (
    DETECTIONS,
    FRAMES,
    IMAGES,
    KEY,
    MAX_DETECTIONS,
    NMS_THRESHOLD,
    SCORE_THRESHOLD,
    Description,
    ExportError,
    dense_names,
)
from retinanet.images import Frame, Scaled, decode_for, prepare_pixels
from retinanet.types import ArrayDetections

MAX_LOG_SCALE: Final = float(np.log(1000.0 / 16))
"""As in `boxes.decode`, which is torch's."""

Arrays = list[npt.NDArray[Any]]


class Engine(Protocol):
    """What runs a graph. It may be called from several threads."""

    description: str
    """The JSON that the file brings."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Return the named outputs."""


class LevelOutputs(NamedTuple):
    """What one level of the pyramid says at each of its positions."""

    level: int
    stride: int
    """Input pixels between positions, as declared: see `ModelConfig.anchor_style`."""
    scores_HWCK: npt.NDArray[np.float32]
    """Probability of each class, for each of the C anchors of a position."""
    boxes_HWC4: npt.NDArray[np.float32]
    """The box that each anchor proposes: xyxy, original pixels, clipped to the picture."""
    anchors_HWC4: npt.NDArray[np.float32]
    """The anchors themselves: xyxy, original pixels, not clipped."""


@dataclass(frozen=True, kw_only=True)
class DenseOutputs:
    """All that the network says of one picture, before thresholds and non-maximum suppression.

    Args:
        frame: the picture's size before and after resizing.
        levels: finest first.
    """

    frame: Frame
    levels: tuple[LevelOutputs, ...]

    def at(self, x: float, y: float) -> list[tuple[LevelOutputs, int, int]]:
        """Return, for each level, it and the row and column of its position nearest to a place, original pixels."""
        out = []
        for level in self.levels:
            centers_HW2 = (level.anchors_HWC4[:, :, 0, :2] + level.anchors_HWC4[:, :, 0, 2:]) / 2
            row = int(np.abs(centers_HW2[:, 0, 1] - y).argmin())
            out.append((level, row, int(np.abs(centers_HW2[0, :, 0] - x).argmin())))
        return out


class RuntimeDetector(BaseDetector):
    """An exported model: as `Detector`, without torch. It may be called from several threads at once.

    Args:
        engine: runs the graph.
        description: what the file says of itself.
    """

    def __init__(self, *, engine: Engine, description: Description) -> None:
        super().__init__(
            classes=description.classes,
            category_ids=description.category_ids,
            image_config=description.image_config,
            postprocess_config=description.postprocess_config,
            tiling=description.tiling,
        )
        self.engine = engine
        self.description = description

    @classmethod
    def from_file(
        cls, path: str | Path, *, device: str = "auto", threads: int = 0, precision: str | None = None
    ) -> RuntimeDetector:
        """Return the detector of a file that `retinanet export` wrote.

        Args:
            path: .onnx, or .xml of OpenVINO with its .bin beside it.
            device: auto (CUDA where ONNX Runtime has it, else the CPU), cpu, cuda, or a name of OpenVINO's.
            threads: that one call computes with; 0: all cores.
            precision: float32 or bf16, for OpenVINO, in place of the hint in the file.

        Raises:
            ExportError: not an export of ours.
            ConfigError: a device that is not there.
        """
        path = Path(path)
        engine: Engine
        if path.suffix.lower() == ".xml":
            engine = _OpenVinoEngine(path, device=device, threads=threads, precision=precision)
        else:
            engine = _OnnxEngine(path, device=device, threads=threads)
        return cls(engine=engine, description=Description.from_json(engine.description, str(path)))

    def dense(self, source: Source | Scaled) -> DenseOutputs:
        """Return what every level says at every position of one picture: why an object is found, or missed.

        Raises:
            ImageError: a picture that does not decode.
        """
        if not isinstance(source, Scaled):
            config = self.image_config
            source = decode_for(source, image_size=config.image_size, max_size=config.max_size)
        return self.dense_batch([source])[0]

    def dense_batch(self, images: Sequence[Scaled]) -> list[DenseOutputs]:
        """Return what every level says of each of some decoded pictures, which go through the network as one batch."""
        pixels_N3HW, frames = self._prepare(images, self.image_config)
        about = self.description
        inputs = self._inputs(pixels_N3HW, frames, self.postprocess_config)
        outputs = self.engine.run(dense_names(about.levels), inputs)
        found = []
        for n, frame in enumerate(frames):
            levels = []
            for i, (level, cells) in enumerate(zip(about.levels, about.cells, strict=True)):
                logits_AK, deltas_A4 = (np.asarray(out[n], np.float32) for out in outputs[2 * i : 2 * i + 2])
                size, style = pixels_N3HW.shape[2:], about.anchor_style
                cells_C4 = np.array(cells, np.float32)
                levels.append(level_outputs(level, cells_C4, logits_AK, deltas_A4, size, frame, style=style))
            found.append(DenseOutputs(frame=frame, levels=tuple(levels)))
        return found

    def _prepare(self, images: Sequence[Image.Image | Scaled], config: ImageConfig) -> tuple[Pixels, list[Frame]]:
        """Return the pixels as the graph takes them, which normalises them itself."""
        pixels_N3HW, frames = prepare_pixels(images, config)
        if self.description.uint8:
            return pixels_N3HW, frames
        return np.multiply(pixels_N3HW, np.float32(1 / 255), dtype=np.float32), frames

    def _inputs(
        self, pixels_N3HW: Pixels, frames: Sequence[Frame], config: PostprocessConfig
    ) -> dict[str, npt.NDArray[Any]]:
        inputs: dict[str, npt.NDArray[Any]] = {IMAGES: pixels_N3HW, FRAMES: np.array(frames, np.float32)}
        if not self.description.raw:
            inputs |= {
                SCORE_THRESHOLD: np.array([config.score_threshold], np.float32),
                NMS_THRESHOLD: np.array([config.nms_threshold], np.float32),
                MAX_DETECTIONS: np.array([config.max_detections], np.int64),
            }
        return inputs

    def _detect(self, batch: Batch, config: PostprocessConfig) -> list[ArrayDetections]:
        if batch.images_N3HW is None:
            return []
        if self.description.raw:
            raise ExportError("this model was exported with --raw: it gives logits and offsets, not detections")
        outputs = self.engine.run(DETECTIONS, self._inputs(batch.images_N3HW, batch.frames, config))
        return [
            ArrayDetections(
                boxes_D4=np.asarray(boxes[:count], np.float32),
                scores_D=np.asarray(scores[:count], np.float32),
                labels_D=np.asarray(labels[:count], np.int64),
            )
            for boxes, scores, labels, count in zip(*outputs, strict=True)
        ]


def level_outputs(
    level: int,
    cells_C4: npt.NDArray[np.float32],
    logits_AK: npt.NDArray[np.float32],
    deltas_A4: npt.NDArray[np.float32],
    input_size: tuple[int, ...],
    frame: Frame,
    *,
    style: str = ModelConfig.anchor_style,
) -> LevelOutputs:
    """Return what a level says of one picture, its boxes decoded as `boxes.decode` does.

    Args:
        level: its number.
        cells_C4: the anchors around (0, 0), input pixels.
        logits_AK: of all anchors of the level, position by position.
        deltas_A4: likewise.
        input_size: height and width of the padded input, pixels.
        frame: of the picture.
        style: of the anchors, see `ModelConfig`.
    """
    stride, C = 2**level, len(cells_C4)
    H, W = (-(-side // stride) for side in input_size)
    steps_2 = (input_size[1] // W, input_size[0] // H) if style == "torchvision" else (stride, stride)
    centers_HW2 = (np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1) * steps_2).astype(np.float32)
    anchors_HWC4 = np.tile(centers_HW2, 2)[:, :, None] + cells_C4
    deltas_HWC4 = deltas_A4.reshape(H, W, C, 4)
    sides = anchors_HWC4[..., 2:] - anchors_HWC4[..., :2]
    middle = (anchors_HWC4[..., 2:] + anchors_HWC4[..., :2]) / 2 + deltas_HWC4[..., :2] * sides
    half = sides * np.exp(np.minimum(deltas_HWC4[..., 2:], np.float32(MAX_LOG_SCALE))) / 2
    limit = np.array([frame.resized_width, frame.resized_height] * 2, np.float32)
    boxes_HWC4 = np.clip(np.concatenate([middle - half, middle + half], axis=-1), 0, limit)
    factor = np.array([frame.width / frame.resized_width, frame.height / frame.resized_height] * 2, np.float32)
    with np.errstate(over="ignore"):  # exp of a logit of -100 or less: the probability is 0
        scores_HWCK = (1 / (1 + np.exp(-logits_AK.reshape(H, W, C, -1)))).astype(np.float32)
    return LevelOutputs(level, stride, scores_HWCK, boxes_HWC4 * factor, anchors_HWC4 * factor)


class _OnnxEngine:
    """ONNX Runtime."""

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        import onnxruntime as ort

        there = ort.get_available_providers()
        cuda = device.startswith("cuda") or (device == "auto" and "CUDAExecutionProvider" in there)
        if not cuda and device not in {"auto", "cpu"}:
            raise ConfigError(f"device must be auto, cpu or cuda for an .onnx file, found {device!r}")
        if cuda and "CUDAExecutionProvider" not in there:
            raise ConfigError(f"device {device}: this ONNX Runtime has {', '.join(there)}; install onnxruntime-gpu")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if cuda:
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}))
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime has a class for each of its status codes, with no common base
            raise ExportError(f"{path} cannot be read as an ONNX model: {error}") from error
        self.description = _ours(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        return list(self._session.run(list(outputs), dict(inputs)))


@functools.cache
def openvino_core() -> Any:
    """Return the one Core of this process, which is never freed.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signals, and frees that when it goes. With two
    Cores, the first of which goes first, the thread is left with a stack that is no more, and the next signal, such as
    that of a data loader's worker that ends, kills the process.
    """
    import openvino as ov

    return ov.Core()


class _OpenVinoEngine:
    """OpenVINO. The dense outputs are compiled when they are first asked for."""

    def __init__(self, path: Path, *, device: str, threads: int, precision: str | None) -> None:
        self._core = openvino_core()
        self._device = {"auto": "CPU", "cpu": "CPU"}.get(device, device.upper())
        if self._device.partition(".")[0] not in {d.partition(".")[0] for d in self._core.available_devices}:
            found = ", ".join(self._core.available_devices)
            raise ConfigError(f"device {device!r} is not there: this OpenVINO has {found}")
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise ExportError(f"{path} cannot be read as an OpenVINO model: {error}") from error
        has = self._model.has_rt_info([KEY])
        self.description = _ours(self._model.get_rt_info([KEY]).value if has else None, path)
        hint = precision or json.loads(self.description).get("precision")
        self._options["INFERENCE_PRECISION_HINT"] = "bf16" if hint == "bf16" else "f32"
        self._compiled: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        requests = self._local.__dict__.setdefault("requests", {})  # a request serves one thread at a time
        key = tuple(outputs)
        if key not in requests:
            with self._lock:
                if key not in self._compiled:
                    self._compiled[key] = self._compile(key)
            requests[key] = self._compiled[key].create_infer_request()
        wanted = {port.get_any_name() for port in requests[key].model_inputs}
        found = requests[key].infer({name: array for name, array in inputs.items() if name in wanted})
        return [np.array(found[name]) for name in outputs]

    def _compile(self, outputs: Sequence[str]) -> Any:
        import openvino as ov

        ports = [self._model.output(name) for name in outputs]
        part = ov.Model([port.get_node() for port in ports], self._model.get_parameters(), "retinanet")
        return self._core.compile_model(part, self._device, self._options)


def _ours(description: str | None, path: Path) -> str:
    if not description:
        raise ExportError(f"{path} is no export of retinanet's: its metadata has no entry {KEY!r}")
    return str(description)
