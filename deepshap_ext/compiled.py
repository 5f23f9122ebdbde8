"""Stages of a trace through torch.compile."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from .errors import in_short
from .traced import Stage

_aten = torch.ops.aten


def compiled(stage: Stage, tell: Callable[[str], None]) -> Stage:
    """The stage, compiled by Inductor when it first runs. If that fails it stays as it is, and ``tell`` is given the reason."""
    if not stage.operations:
        return stage
    graph = _for_inductor(stage.graph)
    made: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False)
    works = False

    def run(*values: Tensor) -> Sequence[Tensor]:
        nonlocal made, works
        try:
            found: Sequence[Tensor] = made(*values)
        except Exception as error:
            if works:
                raise
            tell(f"torch.compile does not take it ({in_short(error)}), so it is replayed as it is")
            made = stage.run
            found = made(*values)
        works = True
        return found

    return replace(stage, run=run)


def _for_inductor(module: GraphModule) -> GraphModule:
    """A copy of the graph in the operations that Inductor handles best, with tensors of its own that share the model's memory."""
    graph = copy.deepcopy(module.graph)
    _slopes_in_torch(graph)
    if any(node.op == "placeholder" and node.meta["val"].device.type == "cuda" for node in graph.nodes):
        _convolutions_in_channels_last(graph)
    made = GraphModule(module, graph)
    # torch.compile sets attributes on the tensors of a module, and the model's own must not change: detached ones share their memory.
    for name, tensor in [
        *made.named_parameters(recurse=False, remove_duplicate=False),
        *made.named_buffers(recurse=False, remove_duplicate=False),
    ]:
        delattr(made, name)
        made.register_buffer(name, tensor.detach())
    return made


def _slopes_in_torch(graph: Graph) -> None:
    """Write the multipliers of the functions in ``SLOPES`` in torch's operations, which Inductor fuses with those around them."""
    for node in graph.nodes:
        if node.target is torch.ops.deepshap_ext.rescale.default and node.args[4] in SLOPES:
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_function(rescaled, node.args))
            graph.erase_node(node)


def _convolutions_in_channels_last(graph: Graph) -> None:
    """Write convolutions of one dimension as those of two, and lay out the operands of both in channels-last, as cuDNN's kernels take them.

    Inductor by itself does that for convolutions of two dimensions only, and it first copies a view, as the pairs in one batch dimension
    are, into a contiguous tensor. The copy in channels-last that is made here is fused with the operation that makes the operand, and every
    reader of the operand reads the copy.
    """
    laid_out: dict[Node, Node] = {}
    for node in graph.find_nodes(op="call_function", target=_aten.convolution.default):
        operand, weight, bias, stride, padding, dilation, transposed, left_over, groups = node.args
        dims = len(stride)
        if dims > 2 or node.meta["val"].dim() != dims + 2:
            continue
        if operand not in laid_out:
            laid_out[operand] = _in_channels_last(graph, operand, dims)
        if dims == 2:
            node.args = (laid_out[operand], *node.args[1:])
            continue
        with graph.inserting_before(node):
            planes = graph.call_function(_aten.unsqueeze.default, (weight, 2))
            geometry = ([1, *stride], [0, *padding], [1, *dilation], transposed, [0, *left_over], groups)
            made = graph.call_function(node.target, (laid_out[operand], planes, bias, *geometry))
            node.replace_all_uses_with(graph.call_function(_aten.squeeze.dim, (made, 2)))
        graph.erase_node(node)
    if laid_out:
        for node in graph.find_nodes(op="call_function", target=_aten.view.default):
            # A view needs the memory order that it was traced with; a reshape works in channels-last as well.
            node.target = _aten.reshape.default


def _in_channels_last(graph: Graph, operand: Node, dims: int) -> Node:
    """A copy of the operand in channels-last, as planes if ``dims`` is 1; every reader of the operand reads the copy from now on."""
    readers = list(operand.users)
    # Placeholders come first in a graph, so the copy of one goes behind the last of them.
    last = operand
    while last.next.op == "placeholder":
        last = last.next
    with graph.inserting_before(last.next):
        planes = operand if dims == 2 else graph.call_function(_aten.unsqueeze.default, (operand, 2))
        copied = graph.call_function(_aten.clone.default, (planes,), {"memory_format": torch.channels_last})
        read = copied if dims == 2 else graph.call_function(_aten.squeeze.dim, (copied, 2))
    for reader in readers:
        reader.replace_input_with(operand, read)
    return copied


def rescaled(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    rows: Tensor,
    function: str,
    parameters: Sequence[float],
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    """What :func:`deepshap_ext.ops.rescale` computes, for a function of ``SLOPES`` and finite numbers."""
    inner = x.numel() // (outer * batch)
    baselines = r.reshape(outer, -1, inner)
    if pairing == "grid":
        theirs = baselines.index_select(1, rows).movedim(1, 0).unsqueeze(2)
    elif pairing == "aligned":
        theirs = baselines.unsqueeze(0)
    else:
        theirs = baselines.unflatten(1, (batch, -1)).index_select(2, rows).movedim(2, 0)
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    slope = SLOPES[function](x.reshape(outer, batch, inner).to(wide), theirs.to(wide), *parameters)
    return (grad.reshape(len(grad), outer, batch, inner).to(wide) * slope).to(grad.dtype).reshape(grad.shape)


def _of_relu(x: Tensor, r: Tensor) -> Tensor:
    return _slope(x, r, x.relu(), r.relu(), x > 0)


def _of_hardtanh(x: Tensor, r: Tensor, least: float, most: float) -> Tensor:
    return _slope(x, r, x.clamp(least, most), r.clamp(least, most), (x > least) & (x < most))


def _of_leaky_relu(x: Tensor, r: Tensor, slope: float) -> Tensor:
    return slope + (1 - slope) * _of_relu(x, r)


def _slope(x: Tensor, r: Tensor, f_x: Tensor, f_r: Tensor, rises: Tensor) -> Tensor:
    """The quotient of differences; at ``x = r``, where there is none, 1 where the function ``rises`` and 0 elsewhere."""
    apart = x - r
    return torch.where(apart == 0, rises.to(x.dtype), (f_x - f_r) / apart)


#: Slopes between ``x`` and ``r`` of functions whose values are exact, so that a plain quotient of differences loses no digits.
SLOPES: dict[str, Callable[..., Tensor]] = {"relu": _of_relu, "hardtanh": _of_hardtanh, "leaky_relu": _of_leaky_relu}
