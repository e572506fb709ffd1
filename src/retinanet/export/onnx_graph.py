"""Build the ONNX graph from images to detections: normalisation, network and decoding. Needs onnx, not torch.

Only standard ONNX operators are used. Shape suffixes: N batch, A anchors of a level, C anchors of a position,
K classes, T candidates of a level, M candidates of all levels, S candidates that NMS keeps, D detections of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from retinanet.runtime.description import (
    CLASS_THRESHOLDS,
    DETECTIONS,
    FRAMES,
    IMAGES,
    KEY,
    MAX_DETECTIONS,
    NMS_THRESHOLD,
    OPSET,
    SCORE_THRESHOLD,
    Description,
    dense_names,
)
from retinanet.types import MAX_LOG_SCALE

if TYPE_CHECKING:
    from collections.abc import Sequence

NORMALISED: Final = "normalised"
"""Name of the network's input in the joined graph."""
IR_VERSION: Final = 10
"""Version of the ONNX file format. ONNX Runtime 1.18 and later read it."""


class Graph:
    """Builder of an ONNX graph, node by node. Values are represented by their names.

    Args:
        prefix: prefix of all names in the graph.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def const(self, value: Any, dtype: Any = np.int64) -> str:
        """Add a constant, and return its name."""
        name = f"{self.prefix}c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def add_node(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs, and return the names of the outputs."""
        names = [f"{self.prefix}{op}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=names[0], **attributes))
        return names

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the name of the output."""
        return self.add_node(op, inputs, 1, **attributes)[0]

    def set_output(self, value: str, name: str) -> None:
        """Make a value the graph's output `name`."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{self.prefix}give_{name}"))

    def model(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """Return the model that consists of the added nodes."""
        graph = helper.make_graph(self.nodes, self.prefix, list(inputs), list(outputs), self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _tensor_info(name: str, dtype: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def normalisation_graph(about: Description) -> onnx.ModelProto:
    """Return the graph from images to the network's input: (x - mean) / std inside the image, 0 in the padding."""
    g = Graph("normalise_")
    images = g("Cast", IMAGES, to=TensorProto.FLOAT) if about.uint8 else IMAGES
    scale = 255.0 if about.uint8 else 1.0
    mean, std = np.array(about.image_config.image_mean), np.array(about.image_config.image_std)
    factor = g.const((1 / (scale * std)).reshape(1, 3, 1, 1), np.float32)
    shift = g.const((mean / std).reshape(1, 3, 1, 1), np.float32)
    plain = g("Sub", g("Mul", images, factor), shift)
    size = g("Shape", IMAGES)
    inside = []
    for axis, place, shape in ((3, 2, (1, 1, 1, -1)), (2, 3, (1, 1, -1, 1))):
        length = g("Gather", size, g.const(axis))
        index = g("Range", g.const(0), length, g.const(1))
        index = g("Reshape", g("Cast", index, to=TensorProto.FLOAT), g.const(shape))
        limit = g("Slice", FRAMES, g.const([place]), g.const([place + 1]), g.const([1]))
        limit = g("Where", g("Greater", limit, g.const(0, np.float32)), limit, g.const(1e9, np.float32))
        limit = g("Reshape", limit, g.const((-1, 1, 1, 1)))
        inside.append(g("Less", index, limit))
    g.set_output(g("Where", g("And", *inside), plain, g.const(0, np.float32)), NORMALISED)
    kind = TensorProto.UINT8 if about.uint8 else TensorProto.FLOAT
    return g.model(
        [_tensor_info(IMAGES, kind, "N", 3, "H", "W"), _tensor_info(FRAMES, TensorProto.FLOAT, "F", 4)],
        [_tensor_info(NORMALISED, TensorProto.FLOAT, "N", 3, "H", "W")],
    )


def decoding_graph(about: Description) -> onnx.ModelProto:
    """Return the graph from the dense outputs to the detections of a batch, with the rules of `postprocess`.

    The graph selects the `candidates_per_level` best scores of each level, and decodes and clips their boxes. Scores
    below the threshold are removed, and non-maximum suppression runs per class, or over all classes with
    `agnostic_nms`. The best `max_detections` are returned, padded.
    """
    g = Graph("decode_")
    names = dense_names(about.levels)
    size = g("Shape", IMAGES)
    frame = _frame(g, size)
    boxes, scores, labels = [], [], []
    for i, (level, cells) in enumerate(zip(about.levels, about.cells, strict=True)):
        out = _select_candidates(g, names[2 * i], names[2 * i + 1], 2**level, cells, size, about)
        boxes.append(out[0])
        scores.append(out[1])
        labels.append(out[2])
    boxes_NM4 = g("Concat", *boxes, axis=1)
    scores_NM, labels_NM = g("Concat", *scores, axis=1), g("Concat", *labels, axis=1)
    limit_N14 = g("Concat", frame["rw"], frame["rh"], frame["rw"], frame["rh"], axis=2)
    if about.postprocess_config.clip_before_nms:
        boxes_NM4 = g("Min", g("Max", boxes_NM4, g.const(0, np.float32)), limit_N14)
    kept_NM = _suppress(g, boxes_NM4, scores_NM, labels_NM, about)

    # Scores of -1 are appended, so that TopK always has max_detections values.
    count = g("Shape", kept_NM)
    N = g("Slice", count, g.const([0]), g.const([1]))
    filler_ND = g("Expand", g.const(-1, np.float32), g("Concat", N, MAX_DETECTIONS, axis=0))
    scores_ND, index_ND = g.add_node("TopK", [g("Concat", kept_NM, filler_ND, axis=1), MAX_DETECTIONS], 2, axis=1)
    last = g("Sub", g("Slice", count, g.const([1]), g.const([2])), g.const([1]))
    index_ND = g("Min", index_ND, last)
    x_factor, y_factor = g("Div", frame["w"], frame["rw"]), g("Div", frame["h"], frame["rh"])
    factor_N14 = g("Concat", x_factor, y_factor, x_factor, y_factor, axis=2)
    boxes_ND4, labels_ND = _gather_rows(g, boxes_NM4, index_ND, 4), g("GatherElements", labels_NM, index_ND, axis=1)
    if not about.postprocess_config.clip_before_nms:
        boxes_ND4 = g("Min", g("Max", boxes_ND4, g.const(0, np.float32)), limit_N14)
        low_ND2, high_ND2 = g.add_node("Split", [boxes_ND4, g.const([2, 2])], 2, axis=2)
        side_ND = g("ReduceMin", g("Sub", high_ND2, low_ND2), g.const([2]), keepdims=0)
        has_area_ND = g("Greater", side_ND, g.const(0, np.float32))
        boxes_ND4, scores_ND, labels_ND = _keep(g, has_area_ND, boxes_ND4, scores_ND, labels_ND)
    if about.tuned is not None:
        above_ND = g("Greater", scores_ND, g("Gather", CLASS_THRESHOLDS, labels_ND))
        boxes_ND4, scores_ND, labels_ND = _keep(g, above_ND, boxes_ND4, scores_ND, labels_ND)
    boxes_ND4 = g("Mul", boxes_ND4, factor_N14)
    real_ND = g("GreaterOrEqual", scores_ND, g.const(0, np.float32))
    real_ND1 = g("Unsqueeze", real_ND, g.const([2]))
    g.set_output(g("Where", real_ND1, boxes_ND4, g.const(0, np.float32)), "boxes")
    g.set_output(g("Where", real_ND, scores_ND, g.const(0, np.float32)), "scores")
    g.set_output(g("Where", real_ND, labels_ND, g.const(-1)), "labels")
    g.set_output(g("ReduceSum", g("Cast", real_ND, to=TensorProto.INT64), g.const([1]), keepdims=0), "counts")
    return g.model(*_decoding_interface(about))


def _decoding_interface(about: Description) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Return the inputs and outputs of the decoding graph, with their types and shapes."""
    kind = TensorProto.UINT8 if about.uint8 else TensorProto.FLOAT
    K = len(about.classes)
    inputs = [
        _tensor_info(IMAGES, kind, "N", 3, "H", "W"),
        _tensor_info(FRAMES, TensorProto.FLOAT, "F", 4),
        *(
            _tensor_info(name, TensorProto.FLOAT, "N", f"A{name[1]}", K if name.endswith("logits") else 4)
            for name in dense_names(about.levels)
        ),
        *(
            _tensor_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), len(value))
            for name, value in about.threshold_inputs().items()
        ),
    ]
    outputs = [
        _tensor_info("boxes", TensorProto.FLOAT, "N", "D", 4),
        _tensor_info("scores", TensorProto.FLOAT, "N", "D"),
        _tensor_info("labels", TensorProto.INT64, "N", "D"),
        _tensor_info("counts", TensorProto.INT64, "N"),
    ]
    return inputs, outputs


def _keep(g: Graph, keep_ND: str, boxes_ND4: str, scores_ND: str, labels_ND: str) -> tuple[str, str, str]:
    """Return the detections with score -1 for those that are not kept, which are moved to the end."""
    scores_ND = g("Where", keep_ND, scores_ND, g.const(-1, np.float32))
    scores_ND, order_ND = g.add_node("TopK", [scores_ND, MAX_DETECTIONS], 2, axis=1)
    return _gather_rows(g, boxes_ND4, order_ND, 4), scores_ND, g("GatherElements", labels_ND, order_ND, axis=1)


def _frame(g: Graph, size: str) -> dict[str, str]:
    """Return the original and the resized width and height, each (N or 1) x 1 x 1. The input's size replaces zeros."""
    out = {}
    for place, (name, axis) in enumerate((("w", 3), ("h", 2), ("rw", 3), ("rh", 2))):
        length = g("Slice", FRAMES, g.const([place]), g.const([place + 1]), g.const([1]))
        input_length = g("Cast", g("Gather", size, g.const(axis)), to=TensorProto.FLOAT)
        value = g("Where", g("Greater", length, g.const(0, np.float32)), length, input_length)
        out[name] = g("Unsqueeze", value, g.const([2]))
    return out


def _gather_rows(g: Graph, rows_NM: str, index_NT: str, width: int) -> str:
    """Return rows_NM[n, index_NT[n]], N x T x width."""
    index = g("Expand", g("Unsqueeze", index_NT, g.const([2])), g.const([1, 1, width]))
    return g("GatherElements", rows_NM, index, axis=1)


def _select_candidates(
    g: Graph,
    logits_NAK: str,
    deltas_NA4: str,
    stride: int,
    cells: Sequence[Sequence[float]],
    size: str,
    about: Description,
) -> tuple[str, str, str]:
    """Return boxes_NT4 (not clipped), scores_NT and labels_NT of a level's candidates."""
    K, C = len(about.classes), len(cells)
    limit = g.const([about.postprocess_config.candidates_per_level])
    # The T best (anchor, class) pairs belong to the T anchors with the highest class scores. Selecting these anchors
    # first avoids sorting all pairs.
    anchors = g("Slice", g("Shape", logits_NAK), g.const([1]), g.const([2]))
    _, anchor_NT = g.add_node(
        "TopK", [g("ReduceMax", logits_NAK, g.const([2]), keepdims=0), g("Min", anchors, limit)], 2
    )
    if K > 1:
        few_NTK = _gather_rows(g, logits_NAK, anchor_NT, K)
        flat = g("Reshape", few_NTK, g.const([0, -1]))
        pairs = g("Slice", g("Shape", flat), g.const([1]), g.const([2]))
        logits_NT, pair_NT = g.add_node("TopK", [flat, g("Min", pairs, limit)], 2)
        label_NT = g("Mod", pair_NT, g.const(K))
        anchor_NT = g("GatherElements", anchor_NT, g("Div", pair_NT, g.const(K)), axis=1)
    else:
        logits_NT = g("GatherElements", g("Squeeze", logits_NAK, g.const([2])), anchor_NT, axis=1)
        label_NT = g("Mul", anchor_NT, g.const(0))
    # Compute the anchors of the candidates only: position (row i, column j) has its centre at (j, i) x stride.
    H, W = g("Gather", size, g.const(2)), g("Gather", size, g.const(3))
    height, width = (g("Div", g("Add", side, g.const(stride - 1)), g.const(stride)) for side in (H, W))
    stride_2 = g.const([stride, stride])
    if about.anchor_style == "torchvision":
        inferred = [g("Reshape", g("Div", *sides), g.const([1])) for sides in ((W, width), (H, height))]
        stride_2 = g("Concat", *inferred, axis=0)
    position_NT = g("Div", anchor_NT, g.const(C))
    x_NT, y_NT = g("Mod", position_NT, width), g("Div", position_NT, width)
    places = [g("Unsqueeze", value, g.const([2])) for value in (x_NT, y_NT)]
    center_NT2 = g("Cast", g("Mul", g("Concat", *places, axis=2), stride_2), to=TensorProto.FLOAT)
    table = np.array(cells, np.float32)
    cell_NT = g("Mod", anchor_NT, g.const(C))
    sides_NT2 = g("Gather", g.const(table[:, 2:] - table[:, :2], np.float32), cell_NT)
    offset_C2 = (table[:, :2] + table[:, 2:]) / 2
    if offset_C2.any():
        center_NT2 = g("Add", center_NT2, g("Gather", g.const(offset_C2, np.float32), cell_NT))
    deltas_NT4 = _gather_rows(g, deltas_NA4, anchor_NT, 4)
    shift_NT2, scale_NT2 = g.add_node("Split", [deltas_NT4, g.const([2, 2])], 2, axis=2)
    middle_NT2 = g("Add", center_NT2, g("Mul", shift_NT2, sides_NT2))
    scale_NT2 = g("Exp", g("Min", scale_NT2, g.const(MAX_LOG_SCALE, np.float32)))
    half_NT2 = g("Mul", g("Mul", sides_NT2, scale_NT2), g.const(0.5, np.float32))
    boxes_NT4 = g("Concat", g("Sub", middle_NT2, half_NT2), g("Add", middle_NT2, half_NT2), axis=2)
    return boxes_NT4, g("Sigmoid", logits_NT), label_NT


def _suppress(g: Graph, boxes_NM4: str, scores_NM: str, labels_NM: str, about: Description) -> str:
    """Return scores_NM with -1 for scores below the threshold and for boxes that NMS suppresses."""
    scores_NKM = g("Unsqueeze", scores_NM, g.const([1]))  # one class for all boxes, if NMS is class-agnostic
    if not about.postprocess_config.agnostic_nms:
        class_1K1 = g.const(np.arange(len(about.classes)).reshape(1, -1, 1))
        own_NKM = g("Equal", g("Unsqueeze", labels_NM, g.const([1])), class_1K1)
        scores_NKM = g("Where", own_NKM, scores_NKM, g.const(-1, np.float32))
    # The limit per class is the number of candidates, not max_detections: all detections may be of one class, and
    # OpenVINO does not accept the graph's max_detections input as this limit.
    limit = g("Gather", g("Shape", scores_NM), g.const([1]))
    kept_S3 = g("NonMaxSuppression", boxes_NM4, scores_NKM, limit, NMS_THRESHOLD, SCORE_THRESHOLD)
    place_S2 = g("Gather", kept_S3, g.const([0, 2]), axis=1)
    values_S = g("GatherND", scores_NM, place_S2)
    nothing_NM = g("Sub", g("Mul", scores_NM, g.const(0, np.float32)), g.const(1, np.float32))
    return g("ScatterND", nothing_NM, place_S2, values_S)


def join_graphs(network: onnx.ModelProto, about: Description, *, defaults: bool) -> onnx.ModelProto:
    """Return one graph from images to detections, or to the dense outputs if `about.raw` is set.

    Args:
        network: network from `NORMALISED` to the dense outputs.
        about: description of the exported file, which is stored in the metadata.
        defaults: add default values for thresholds and frames, which callers may then leave out. It must be False for
            OpenVINO, which treats defaults as constants.
    """
    names = dense_names(about.levels)
    network = _add_prefix(network)
    before = normalisation_graph(about)
    whole = _merge(before, network, [(NORMALISED, NORMALISED)])
    if not about.raw:
        after = decoding_graph(about)
        graph = whole.graph
        graph.node.extend(after.graph.node)
        graph.initializer.extend(after.graph.initializer)
        graph.input.extend(value for value in after.graph.input if value.name in about.threshold_inputs())
        dense = list(graph.output)
        del graph.output[:]
        graph.output.extend(after.graph.output)
        graph.output.extend(dense)
    for value in whole.graph.output:
        if value.name in names:
            del value.type.tensor_type.shape.dim[:]
            last = len(about.classes) if value.name.endswith("logits") else 4
            shaped = _tensor_info(value.name, TensorProto.FLOAT, "N", f"A{value.name[1]}", last)
            value.CopyFrom(shaped)
    if defaults:
        default = {FRAMES: np.zeros((1, 4), np.float32)} | ({} if about.raw else about.threshold_inputs())
        whole.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in default.items())
    del whole.opset_import[:]
    whole.opset_import.append(helper.make_opsetid("", OPSET))
    whole.graph.name = KEY
    whole.producer_name, whole.producer_version = KEY, about.version
    del whole.metadata_props[:]
    whole.metadata_props.append(onnx.StringStringEntryProto(key=KEY, value=about.to_json()))
    onnx.checker.check_model(whole, full_check=True)
    return whole


def _add_prefix(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with prefixed names of its inner values, and without the exporter's metadata."""
    out = compose.add_prefix(network, "network_", rename_inputs=False, rename_outputs=False)
    del out.graph.value_info[:]
    del out.metadata_props[:]
    for node in out.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return out


def _merge(first: onnx.ModelProto, second: onnx.ModelProto, io_map: list[tuple[str, str]]) -> onnx.ModelProto:
    merged = compose.merge_models(first, second, io_map=io_map)
    merged.ir_version = IR_VERSION
    return merged


__all__ = ["DETECTIONS", "NORMALISED", "decoding_graph", "join_graphs", "normalisation_graph"]
