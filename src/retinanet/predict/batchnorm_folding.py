"""Simplify a backbone for prediction: fold BatchNorm, activations and residual additions into convolutions."""

from __future__ import annotations

import logging
import operator
from typing import Any, Final

import torch
from torch import fx, nn

from retinanet.ops.convolution import (
    PreparedConvolution,
    prepare_convolution,
    supports_activation,
    supports_convolution,
)

log = logging.getLogger(__name__)

_BATCHNORMS: Final = (nn.BatchNorm2d, nn.SyncBatchNorm)


class _Tracer(fx.Tracer):
    """Tracer that records a module without submodules, or BatchNorm with its activation, as one graph node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether the module is one graph node."""
        return isinstance(m, _BATCHNORMS) or not any(True for _ in m.children())


def fold_batchnorm(body: nn.Module) -> nn.Module:
    """Return the backbone with BatchNorm, activations and residual additions folded into its convolutions.

    A backbone that torch.fx cannot trace is returned unchanged.
    """
    try:
        graph = _Tracer().trace(body)
    except Exception as error:  # noqa: BLE001 - tracing runs the backbone's code, which can raise anything
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
    """Simplify one graph node, in place.

    A convolution is replaced by a `PreparedConvolution`. BatchNorm and activations are removed if the convolution
    before them can include them. Identity and dropout are removed.
    """
    module, source = modules[str(node.target)], node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101 - the inputs of a backbone's layers are feature maps
    before = modules[str(source.target)] if source.op == "call_module" else None
    only_use = len(source.users) == 1 and calls.get(str(source.target), 0) == 1
    if isinstance(module, nn.Identity | nn.Dropout):
        _drop(node, source)
    elif supports_convolution(module) and calls[str(node.target)] == 1:
        modules[str(node.target)] = prepare_convolution(module)
    elif isinstance(module, _BATCHNORMS) and only_use and isinstance(before, PreparedConvolution | nn.Conv2d):
        if isinstance(before, PreparedConvolution) and before.activation is not None:
            return
        _fold(before, module)
        activation = _after_norm(module)
        if activation is not None and not (supports_activation(activation) and isinstance(before, PreparedConvolution)):
            modules[str(node.target)] = activation  # the convolution cannot include it
            return
        if isinstance(before, PreparedConvolution):
            before.activation = activation
        _drop(node, source)
    elif supports_activation(module) and only_use and isinstance(before, PreparedConvolution) and not before.activation:
        before.activation = module
        _drop(node, source)


def _drop(node: fx.Node, source: fx.Node) -> None:
    node.replace_all_uses_with(source)
    node.graph.erase_node(node)


def _after_norm(module: nn.Module) -> nn.Module | None:
    """Return the activation inside timm's BatchNorm modules; None without one."""
    activation = getattr(module, "act", None)
    return None if isinstance(activation, nn.Identity) else activation


def _fold(convolution: PreparedConvolution | nn.Conv2d, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> None:
    """Fold BatchNorm into a convolution: w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + b0.

    g and b0 are BatchNorm's weight and bias; m and v its running mean and variance. The computation is in float64, so
    that only the result is rounded.
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
    """Fold each residual addition, and the activation after it, into the last convolution of the block.

    The convolution overwrites the shortcut with the sum. The shortcut must therefore be the output of a
    `PreparedConvolution`, whose memory no other value shares. Every other use of the shortcut must be a
    `PreparedConvolution` that runs before the addition.
    """
    order = {node: i for i, node in enumerate(graph.nodes)}

    def convolution(node: Any) -> PreparedConvolution | None:
        module = modules[str(node.target)] if isinstance(node, fx.Node) and node.op == "call_module" else None
        return module if isinstance(module, PreparedConvolution) else None

    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in {operator.add, operator.iadd, torch.add}:
            continue
        if len(node.args) != 2 or node.kwargs:
            continue
        for last, shortcut in (node.args, node.args[::-1]):
            prepared = convolution(last)
            if prepared is None or prepared.activation is not None or len(last.users) != 1 or len(last.args) != 1:
                continue
            others = [user for user in shortcut.users if user is not node]
            # The convolution moves to the place of the addition, after the node that computes the shortcut. No node in
            # between may use the convolution's input, because it could change the input in place.
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
                prepared.activation = module
                following.replace_all_uses_with(joined)
                graph.erase_node(following)
            break


def join_activations(layers: list[nn.Module], *, shapes: int) -> nn.Sequential:
    """Return the layers as one module, with each activation inside the convolution before it.

    Args:
        layers: convolutions, activations and other layers, in order.
        shapes: number of input shapes for which a convolution keeps its prepared weights.
    """
    out: list[nn.Module] = []
    for layer in layers:
        before = out[-1] if out else None
        if supports_activation(layer) and isinstance(before, PreparedConvolution) and before.activation is None:
            before.activation = layer
        else:
            out.append(prepare_convolution(layer, shapes=shapes) if supports_convolution(layer) else layer)
    return nn.Sequential(*out)
