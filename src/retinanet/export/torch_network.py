"""Convert the PyTorch network to ONNX and torch.export. The conversion uses a copy and never changes the given model.

Shape suffixes: N batch, A anchors of a level, K classes, H, W.
"""

from __future__ import annotations

import copy
import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from retinanet import boxes
from retinanet.export.onnx_graph import NORMALISED
from retinanet.model.build import COARSEST_MAP
from retinanet.runtime.description import OPSET, ExportError, dense_names

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.model import RetinaNet
    from retinanet.runtime.description import Description

DIVISOR: Final = 32
"""The height and width of the input of an exported network must be multiples of this number."""
_EXAMPLE: Final = (2, 3, 512, 640)
"""Shape N3HW of the input with which torch traces the network."""


class DenseNetwork(nn.Module):
    """Network from normalised_N3HW to logits_NAK and deltas_NA4 of each level."""

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.model = fix_padding(copy.deepcopy(model).eval())

    def forward(self, normalised_N3HW: Tensor) -> tuple[Tensor, ...]:
        """Return the logits and the offsets of each level, finest level first: a flat tuple."""
        out = []
        for level in self.model.fpn(self.model.backbone(normalised_N3HW)):
            out += [self.model.class_head([level]), self.model.box_head([level])]
        return tuple(out)


class DecodingNetwork(nn.Module):
    """Network from images to the class scores and the box of every anchor, without clipping, top-k and NMS."""

    def __init__(self, model: RetinaNet, about: Description) -> None:
        super().__init__()
        self.dense = DenseNetwork(model)
        self.uint8 = about.uint8
        for name in ("mean", "std"):
            values = torch.tensor(getattr(about.image_config, f"image_{name}")).reshape(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images_N3HW: Tensor, sizes_N2: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores_NAK and boxes_NA4 (xyxy, input pixels) of all anchors, finest level first.

        Args:
            images_N3HW: float in [0, 1] or uint8, padded at the right and bottom.
            sizes_N2: int64, width and height of each image without padding.
        """
        images_N3HW = images_N3HW.float() / 255 if self.uint8 else images_N3HW
        H, W = images_N3HW.shape[2:]
        normalised_N3HW = (images_N3HW - self.mean) / self.std
        inside = torch.arange(W).view(1, 1, 1, W) < sizes_N2[:, 0].view(-1, 1, 1, 1)
        inside = inside & (torch.arange(H).view(1, 1, H, 1) < sizes_N2[:, 1].view(-1, 1, 1, 1))
        model = self.dense.model
        levels = model.fpn(model.backbone(torch.where(inside, normalised_N3HW, 0.0)))
        sizes = [(m.shape[-2], m.shape[-1]) for m in levels]
        anchors_A4, _ = model.anchors(sizes, like=normalised_N3HW, input_size=(H, W))
        return model.class_head(levels).sigmoid(), boxes.decode(model.box_head(levels), anchors_A4)


def fix_padding(model: RetinaNet) -> RetinaNet:
    """Replace "SAME" convolutions (TensorFlow) by convolutions with a fixed padding. Changes `model`, and returns it.

    A "SAME" convolution computes its padding from every input's size, which torch.export cannot trace in reasonable
    time. If the input side is a multiple of the stride, the total padding is always kernel - stride, with the larger
    half at the right and bottom. The sides are such multiples because they are multiples of `DIVISOR`.
    """
    for name, module in list(model.backbone.named_modules()):
        if not isinstance(module, Conv2dSame):
            continue
        total = [
            max(d * (k - 1) + 1 - s, 0)
            for k, s, d in zip(module.kernel_size, module.stride, module.dilation, strict=True)
        ]
        (top, bottom), (left, right) = ((p // 2, p - p // 2) for p in total)
        plain: Any = nn.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            dilation=module.dilation,  # type: ignore[arg-type]
            groups=module.groups,
            bias=module.bias is not None,
        )
        plain.load_state_dict(module.state_dict())
        parent, _, child = name.rpartition(".")
        padded = nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain).eval()
        setattr(model.backbone.get_submodule(parent), child, padded)
    return model


def min_side(model: RetinaNet) -> int:
    """Return the smallest height and width of a torch.export program's input: two positions in the coarsest map."""
    return int(2 ** max(model.config.levels[-1], COARSEST_MAP)) + DIVISOR


def _dimensions(min_length: int = DIVISOR) -> dict[int, Any]:
    """Return the dynamic axes of the input N3HW: any batch size, sides from `min_length` in steps of `DIVISOR`."""
    dim = torch.export.Dim
    side = {axis: DIVISOR * dim(name, min=min_length // DIVISOR, max=4096) for axis, name in ((2, "h"), (3, "w"))}
    return {0: dim("n", min=1, max=4096), **side}


def dense_onnx(model: RetinaNet) -> onnx.ModelProto:
    """Return the network as ONNX, from `onnx_graph.NORMALISED` to the dense outputs.

    Raises:
        ExportError: torch cannot export this backbone.
    """
    names = dense_names(model.config.levels)
    discarded = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(discarded), redirect_stderr(discarded):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                DenseNetwork(model).cpu().float(),
                (torch.zeros(_EXAMPLE),),
                input_names=[NORMALISED],
                output_names=names,
                opset_version=OPSET,
                dynamic_shapes=(_dimensions(),),
                dynamo=True,
                optimize=True,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"torch cannot export {model.config.backbone} to ONNX: {error}") from error
    assert program is not None  # noqa: S101 - None is returned with dynamo=False only
    return program.model_proto


def export_program(model: RetinaNet, about: Description) -> torch.export.ExportedProgram:
    """Return `DecodingNetwork` as a torch.export program, for any number of images with sides of at least `min_side`.

    Raises:
        ExportError: torch cannot export this backbone.
    """
    images = torch.zeros(_EXAMPLE, dtype=torch.uint8 if about.uint8 else torch.float32)
    sizes = torch.tensor([[_EXAMPLE[3], _EXAMPLE[2]]] * _EXAMPLE[0])
    dimensions = _dimensions(min_side(model))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(
                DecodingNetwork(model, about).cpu().float().eval(),
                (images, sizes),
                dynamic_shapes=(dimensions, {0: dimensions[0]}),
                strict=False,
            )
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        raise ExportError(f"torch.export cannot export {model.config.backbone}: {error}") from error
