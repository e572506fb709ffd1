"""Static quantisation to int8: ONNX Runtime's (QDQ) for ONNX, NNCF for OpenVINO. Weights per channel.

The normalisation, the decoding and the last convolution of each head stay in float: a step of int8 in a logit of -3 is
several hundredths of a score, and in an offset several pixels of a large box.
"""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from retinanet.export.onnx_graph import NORMALISED, join
from retinanet.images import decode_for, prepare, prepare_pixels
from retinanet.runtime.description import (
    FRAMES,
    IMAGES,
    KEY,
    MAX_DETECTIONS,
    NMS_THRESHOLD,
    SCORE_THRESHOLD,
    dense_names,
)
from retinanet.runtime.engines import openvino_core

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retinanet.images import Scaled
    from retinanet.runtime.description import Description


def read_onnx(model: onnx.ModelProto) -> Any:
    """Return a graph as OpenVINO's model. Not by its `convert_model`, which reports its use to its makers."""
    return openvino_core().read_model(model.SerializeToString())


def save_openvino(model: Any, about: Description, path: Path) -> None:
    """Write OpenVINO's model as .xml and .bin, with the description inside."""
    import openvino as ov

    model.set_rt_info(about.to_json(), [KEY])
    ov.save_model(model, path, compress_to_fp16=False)


@contextmanager
def _unreported() -> Iterator[None]:
    """Keep NNCF from reporting its use to its makers, which it does unless it believes to run in CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before


def output_convolutions(network: onnx.ModelProto, about: Description) -> list[str]:
    """Return the names of the convolutions that give the dense outputs: the first one above each of them."""
    maker = {name: node for node in network.graph.node for name in node.output}
    found = []
    for name in dense_names(about.levels):
        node = maker[name]
        while node.op_type != "Conv":
            node = maker[node.input[0]]
        found.append(node.name)
    return found


def _decoded(images: Sequence[Path], about: Description) -> Iterator[Scaled]:
    config = about.image_config
    return (decode_for(path, image_size=config.image_size, max_size=config.max_size) for path in images)


def quantise_onnx(network: onnx.ModelProto, about: Description, images: Sequence[Path]) -> onnx.ModelProto:
    """Return the network in int8.

    Args:
        network: from `onnx_graph.NORMALISED` to the dense outputs, in float.
        about: the file's description.
        images: images on which the ranges of the activations are measured.
    """
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = _decoded(images, about)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {NORMALISED: prepare([image], about.image_config)[0]}

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "ready", "small"))
        onnx.save(network, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        q.quantize_static(
            ready,
            small,
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Relu", "MaxPool", "Resize"],
            nodes_to_exclude=output_convolutions(onnx.load(ready), about),
            calibrate_method=q.CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(small)


def quantise_openvino(network: onnx.ModelProto, about: Description, path: Path, images: Sequence[Path]) -> None:
    """Write the network in int8, with normalisation and decoding in float, as OpenVINO's .xml and .bin.

    Args:
        network: from `onnx_graph.NORMALISED` to the dense outputs, in float.
        about: the file's description.
        path: the .xml.
        images: images on which the ranges of the activations are measured.
    """
    with _unreported():
        import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    config = about.postprocess_config

    def inputs(image: Scaled) -> dict[str, Any]:
        pixels_N3HW, frames = prepare_pixels([image], about.image_config)
        return {
            IMAGES: pixels_N3HW if about.uint8 else pixels_N3HW.astype(np.float32) / 255,
            FRAMES: np.array(frames, np.float32),
            SCORE_THRESHOLD: np.array([config.score_threshold], np.float32),
            NMS_THRESHOLD: np.array([config.nms_threshold], np.float32),
            MAX_DETECTIONS: np.array([config.max_detections], np.int64),
        }

    names = [f"network_{name}" for name in output_convolutions(network, about)]
    with _unreported():
        quantised = nncf.quantize(
            read_onnx(join(network, about, defaults=False)),
            nncf.Dataset(list(_decoded(images, about)), inputs),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=names, patterns=["decode_.*", "normalise_.*"], validate=False),
        )
    save_openvino(quantised, about, path)
