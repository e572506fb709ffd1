"""A copy of a network for prediction alone: the same outputs, in less time.

BatchNorm is folded into the convolutions. Activations and residual additions become a part of them. `ops.convolution`
computes the convolutions. If it can compute every layer of the box head tile by tile, offsets are computed only around
the positions whose scores are above the threshold. In bfloat16, the output convolutions stay float32, because the
rounding of the last layer changes scores and large boxes most.

N batch, H, W of a level.
"""

from __future__ import annotations

import copy
import logging
import operator
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import fx, nn

from retinanet.ops.convolution import (
    PreparedConvolution,
    prepare_convolution,
    supports_activation,
    supports_convolution,
)
from retinanet.ops.winograd import tiles_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.model.heads import Head
    from retinanet.model.retinanet import RetinaNet

log = logging.getLogger(__name__)

DTYPES: Final = {"32": torch.float32, "bf16": torch.bfloat16}
_BATCHNORMS: Final = (nn.BatchNorm2d, nn.SyncBatchNorm)


def for_inference(model: RetinaNet, *, precision: str = "32") -> RetinaNet:
    """Return a copy in eval mode that predicts the same faster, on the model's device. The model stays as it is.

    Args:
        model: the network; its weights as they are now.
        precision: "32", or "bf16": weights and feature maps in bfloat16, the output convolutions and all that comes
            out in float32.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    dtype, levels = DTYPES[precision], len(network.config.levels)
    network.backbone.body = _Cast(_folded(network.backbone.body), dtype)
    for head in (network.class_head, network.box_head):
        head.hidden = _join(list(head.hidden), shapes=levels)
        head.output = _Cast(prepare_convolution(head.output, shapes=levels), torch.float32)  # type: ignore[assignment]
    exact: list[nn.Module] = [network.class_head.output, network.box_head.output]
    if _SkippingHead.can_be(network.box_head):
        network.box_head = _SkippingHead(network.box_head)  # type: ignore[assignment]
        exact = [network.class_head.output, network.box_head]
    for convolutions in (network.fpn.lateral, network.fpn.output, network.fpn.coarse):
        for i, convolution in enumerate(convolutions):
            convolutions[i] = prepare_convolution(convolution)
    float32 = {id(m) for part in exact for m in part.modules()}
    for module in network.modules():
        if id(module) not in float32:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)
    return network


def has_fast_bf16() -> bool:
    """Return whether this processor multiplies bfloat16 itself (avx512_bf16, AMX)."""
    if hasattr(torch.cpu, "get_capabilities"):  # not in torch 2.6
        capabilities: Any = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())


class _Cast(nn.Module):
    """A module that works in a number format of its own."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype

    def forward(self, x: Tensor) -> Any:
        """Return what the module makes of the input."""
        return self.module(x.to(self.dtype))


_MOST_TILES: Final = 0.8
"""The share of a level's tiles, over all layers, beyond which clearing memory for the others costs more than it saves.
"""


class _SkippingHead(nn.Module):
    """A box head that works out its values only where they are wanted, and what they depend on. Float32.

    A value depends on the inputs up to `depth` + 1 positions away: the wanted positions grow by one with every layer,
    seen from the last. Elsewhere the layers are 0, as beyond the edge of the map. Winograd's tiles touch such positions
    too, with weights that cancel but for float32's rounding.
    """

    skips = True

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.values, self.hidden, self.output = head.values, head.hidden, head.output

    @staticmethod
    def can_be(head: Head) -> bool:
        """Whether all layers of a head are convolutions that can be worked out tile by tile: no norm over the map."""
        layers = [*head.hidden, head.output.module]
        return all(isinstance(layer, PreparedConvolution) and layer.supports_tiles() for layer in layers)

    def forward(self, levels: Sequence[Tensor], wanted: Sequence[Tensor] | None = None) -> Tensor:
        """Return (N, anchors of all levels, values), 0 at the positions that are not wanted.

        Args:
            levels: maps of the pyramid.
            wanted: bool (N, H, W) for each level; None: all positions.
        """
        rows = []
        for i, level in enumerate(levels):
            N, H, W = level.shape[0], level.shape[2], level.shape[3]
            out = self._level(level.float(), None if wanted is None else wanted[i])
            rows.append(out.view(N, -1, self.values, H, W).permute(0, 3, 4, 1, 2).reshape(N, -1, self.values))
        return torch.cat(rows, dim=1)

    def _level(self, x: Tensor, wanted_NHW: Tensor | None) -> Tensor:
        N, _, H, W = x.shape
        layers: list[Any] = [*self.hidden, self.output.module]
        if wanted_NHW is None or not layers[0].supports_tiles(x):
            return self.output(self.hidden(x))  # type: ignore[no-any-return]
        grown_NHW = wanted_NHW.float()
        tiles = [tiles_of(grown_NHW)]
        for _ in layers[1:]:
            grown_NHW = F.max_pool2d(grown_NHW, 3, stride=1, padding=1)
            tiles.append(tiles_of(grown_NHW))
        if sum(map(len, tiles)) > _MOST_TILES * len(layers) * N * -(-H // 2) * -(-W // 2):
            return self.output(self.hidden(x))  # type: ignore[no-any-return]
        for layer, tiles_T in zip(layers, reversed(tiles), strict=True):
            x = layer(x, tiles_T=tiles_T)
        return x


def _join(layers: list[nn.Module], *, shapes: int) -> nn.Sequential:
    """Return the layers one after the other, activations within the convolutions before them."""
    out: list[nn.Module] = []
    for layer in layers:
        before = out[-1] if out else None
        if supports_activation(layer) and isinstance(before, PreparedConvolution) and before.activation is None:
            before.activation = layer
        else:
            out.append(prepare_convolution(layer, shapes=shapes) if supports_convolution(layer) else layer)
    return nn.Sequential(*out)


class _Tracer(fx.Tracer):
    """Sees modules that have no parts, and BatchNorm with its activation, as one step."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether the module is one step."""
        return isinstance(m, _BATCHNORMS) or not any(True for _ in m.children())


def _folded(body: nn.Module) -> nn.Module:
    """Return a backbone with its BatchNorm folded and its activations joined, or as it is where it cannot be traced."""
    try:
        graph = _Tracer().trace(body)
    except Exception as error:  # noqa: BLE001 - no Triton, no compiler, no driver, an old card: each raises its own
        log.info("the backbone is not simplified for prediction: %s", str(error).split("\n", maxsplit=1)[0])
        return body
    traced = fx.GraphModule(body, graph)
    before = dict(traced.named_modules())
    modules = dict(before)
    calls: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    for node in list(graph.nodes):
        if node.op == "call_module" and len(node.args) == 1:
            _simplify(node, modules, calls)
    _join_additions(graph, modules)
    for name, module in modules.items():
        if module is not before[name]:
            traced.set_submodule(name, module)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def _simplify(node: fx.Node, modules: dict[str, nn.Module], calls: dict[str, int]) -> None:
    """Take one step out of the graph if the convolution before it can do its work; make convolutions ours."""
    module, source = modules[str(node.target)], node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101 - a backbone's layers work on maps
    before = modules[str(source.target)] if source.op == "call_module" else None
    alone = len(source.users) == 1 and calls.get(str(source.target), 0) == 1
    if isinstance(module, nn.Identity | nn.Dropout):
        _drop(node, source)
    elif supports_convolution(module) and calls[str(node.target)] == 1:
        modules[str(node.target)] = prepare_convolution(module)
    elif isinstance(module, _BATCHNORMS) and alone and isinstance(before, PreparedConvolution | nn.Conv2d):
        if isinstance(before, PreparedConvolution) and before.activation is not None:
            return
        _fold(before, module)
        activation = _after_norm(module)
        if activation is not None and not (supports_activation(activation) and isinstance(before, PreparedConvolution)):
            modules[str(node.target)] = activation  # a step of its own still
            return
        if isinstance(before, PreparedConvolution):
            before.activation = activation
        _drop(node, source)
    elif supports_activation(module) and alone and isinstance(before, PreparedConvolution) and not before.activation:
        before.activation = module
        _drop(node, source)


def _drop(node: fx.Node, source: fx.Node) -> None:
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)


def _after_norm(module: nn.Module) -> nn.Module | None:
    """Return the activation that timm's BatchNorm brings along, if any."""
    activation = getattr(module, "act", None)
    return None if isinstance(activation, nn.Identity) else activation


def _fold(convolution: PreparedConvolution | nn.Conv2d, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> None:
    """Scale the weights as BatchNorm scales the outputs: w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + b0.

    In float64, so that what is rounded is the result alone.
    """
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018
    mean, scale = norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.double()
    bias = -mean if convolution.bias is None else convolution.bias.double() - mean
    bias = bias * scale + (norm.bias.double() if norm.affine else 0.0)
    weight = convolution.weight
    folded = (weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype)
    convolution.weight = nn.Parameter(folded.to(memory_format=torch.channels_last), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)


def _join_additions(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Let the last convolution of a residual block add the shortcut and apply the activation after the sum.

    The shortcut is overwritten. So it must come from one of our convolutions (nothing else has the same memory), and
    every other use of it must be a convolution before the sum.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}

    def convolution(node: Any) -> PreparedConvolution | None:
        found = modules[str(node.target)] if isinstance(node, fx.Node) and node.op == "call_module" else None
        return found if isinstance(found, PreparedConvolution) else None

    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in {operator.add, operator.iadd, torch.add}:
            continue
        if len(node.args) != 2 or node.kwargs:
            continue
        for last, shortcut in (node.args, node.args[::-1]):
            ours = convolution(last)
            if ours is None or ours.activation is not None or len(last.users) != 1 or len(last.args) != 1:
                continue
            others = [user for user in shortcut.users if user is not node]
            # The convolution will run where the sum does, after whatever makes the shortcut; nothing in between may
            # work on its input, perhaps in place.
            if any(order[user] > order[last] for user in last.args[0].users):
                continue
            if convolution(shortcut) is None or not all(convolution(o) and order[o] < order[node] for o in others):
                continue
            following = next(iter(node.users)) if len(node.users) == 1 else None
            module = modules[str(following.target)] if following is not None and following.op == "call_module" else None
            with graph.inserting_before(node):
                joined = graph.call_module(last.target, (last.args[0], shortcut))
            order[joined] = order[node]
            node.replace_all_uses_with(joined)
            graph.erase_node(node)
            graph.erase_node(last)
            if following is not None and supports_activation(module):
                ours.activation = module
                following.replace_all_uses_with(joined)
                graph.erase_node(following)
            break
