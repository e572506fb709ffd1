"""Static quantisation to int8, with weights per channel: ONNX Runtime (QDQ) for ONNX, NNCF for OpenVINO.

The normalisation, the decoding and the last convolution of each head stay in float. One int8 step of a logit near -3
changes the score by several hundredths. One int8 step of an offset moves a large box by several pixels.
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

from retinanet.export.onnx_graph import NORMALISED, join_graphs
from retinanet.images import decode_for, prepare, prepare_pixels
from retinanet.runtime.description import (
    FRAMES,
    IMAGES,
    KEY,
    dense_names,
)
from retinanet.runtime.engines import openvino_core

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retinanet.images import Scaled
    from retinanet.runtime.description import Description


def read_onnx(model: onnx.ModelProto) -> Any:
    """Return an ONNX graph as an OpenVINO model. OpenVINO's `convert_model` is not used: it sends usage statistics."""
    return openvino_core().read_model(model.SerializeToString())


def save_openvino(model: Any, about: Description, path: Path) -> None:
    """Write an OpenVINO model as .xml and .bin, with the description in its rt_info."""
    import openvino as ov

    model.set_rt_info(about.to_json(), [KEY])
    ov.save_model(model, path, compress_to_fp16=False)


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Set the variable CI inside a `with` block. NNCF sends usage statistics unless it runs in CI."""
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
    """Return the names of the convolutions that compute the dense outputs: the last one before each output."""
    producer = {name: node for node in network.graph.node for name in node.output}
    convolutions = []
    for name in dense_names(about.levels):
        node = producer[name]
        while node.op_type != "Conv":
            node = producer[node.input[0]]
        convolutions.append(node.name)
    return convolutions


def _decode_images(images: Sequence[Path], about: Description) -> Iterator[Scaled]:
    config = about.image_config
    return (
        decode_for(path, image_size=config.image_size, max_size=config.max_size, bit_depth=config.bit_depth)
        for path in images
    )


def quantise_onnx(network: onnx.ModelProto, about: Description, images: Sequence[Path]) -> onnx.ModelProto:
    """Return the network in int8.

    Args:
        network: float network, from `onnx_graph.NORMALISED` to the dense outputs.
        about: description of the exported file.
        images: images on which the ranges of the activations are measured.
    """
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = _decode_images(images, about)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {NORMALISED: prepare([image], about.image_config)[0]}

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, quantised = (str(Path(folder) / f"{name}.onnx") for name in ("plain", "prepared", "quantised"))
        onnx.save(network, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        q.quantize_static(
            prepared,
            quantised,
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            op_types_to_quantize=["Conv", "Add", "Relu", "MaxPool", "Resize"],
            nodes_to_exclude=output_convolutions(onnx.load(prepared), about),
            calibrate_method=q.CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(quantised)


def quantise_openvino(network: onnx.ModelProto, about: Description, path: Path, images: Sequence[Path]) -> None:
    """Write the network in int8, with normalisation and decoding in float, as OpenVINO's .xml and .bin.

    Args:
        network: float network, from `onnx_graph.NORMALISED` to the dense outputs.
        about: description of the exported file.
        path: .xml file to write; the .bin file is written beside it.
        images: images on which the ranges of the activations are measured.
    """
    with _without_telemetry():
        import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)

    def inputs(image: Scaled) -> dict[str, Any]:
        pixels_N3HW, frames = prepare_pixels([image], about.image_config)
        return {
            IMAGES: pixels_N3HW if about.uint8 else pixels_N3HW.astype(np.float32) / 255,
            FRAMES: np.array(frames, np.float32),
            **about.threshold_inputs(),
        }

    names = [f"network_{name}" for name in output_convolutions(network, about)]
    with _without_telemetry():
        quantised = nncf.quantize(
            read_onnx(join_graphs(network, about, defaults=False)),
            nncf.Dataset(list(_decode_images(images, about)), inputs),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=names, patterns=["decode_.*", "normalise_.*"], validate=False),
        )
    save_openvino(quantised, about, path)
