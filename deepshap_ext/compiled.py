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
from .traced import RESHAPING, Stage

_aten = torch.ops.aten


def compiled(stage: Stage, tell: Callable[[str], None]) -> Stage:
    """The stage, compiled by Inductor when it first runs. If that fails it stays as it is, and ``tell`` is given the reason."""
    if not stage.operations:
        return stage
    graph = _for_inductor(stage.graph)
    # On a GPU the graph says in which layouts convolutions run.
    options: Any = {"layout_optimization": False} if _on_gpu(graph.graph) else None
    made: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False, options=options)
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
    _slopes_in_torch(graph, module)
    _factors_behind_products(graph)
    if _on_gpu(graph):
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


def _on_gpu(graph: Graph) -> bool:
    return any(node.meta["val"].device.type == "cuda" for node in graph.find_nodes(op="placeholder"))


def _slopes_in_torch(graph: Graph, module: GraphModule) -> None:
    """Write the multipliers of the functions in ``SLOPES`` in torch's operations, which Inductor fuses with those around them."""
    for node in graph.nodes:
        if node.target is torch.ops.deepshap_ext.rescale.default and node.args[4] in SLOPES:
            grad, x, r, rows, *rest = node.args
            if rows.op == "get_attr":
                rows = _repeated(getattr(module, rows.target)) or rows
            with graph.inserting_before(node):
                made = graph.call_function(rescaled, (grad, x, r, rows, *rest))
            made.meta = node.meta
            node.replace_all_uses_with(made)
            graph.erase_node(node)


def _repeated(rows: Tensor) -> int | None:
    """How often each row stands in ``rows`` ``[V]`` if these are 0, 1, 2, ..., each as often as the others; else None."""
    number = int(rows.max()) + 1
    times = len(rows) // number
    in_order = torch.arange(number, device=rows.device).repeat_interleave(times)
    return times if torch.equal(rows, in_order) else None


def _factors_behind_products(graph: Graph) -> None:
    """Multiply or divide by a number what matrix products give, in place of an operand of theirs that has no fewer elements, as the
    scores of attention often have: Inductor joins it with what reads the products."""
    for node in graph.nodes:
        if node.target not in (_aten.mul.Tensor, _aten.div.Tensor) or isinstance(node.args[1], Node):
            continue
        products = _products_of(node)
        size, dtype = node.meta["val"].numel(), node.meta["val"].dtype
        # The products of half precision might overflow.
        if not products or dtype == torch.float16 or sum(one.meta["val"].numel() for one in products) > size:
            continue
        operand, number = node.args
        node.replace_all_uses_with(operand)
        for product in products:
            with graph.inserting_after(product):
                scaled = graph.call_function(node.target, (product, number))
            scaled.meta = product.meta
            product.replace_all_uses_with(scaled)
            scaled.args = (product, number)
        graph.erase_node(node)


def _products_of(node: Node) -> list[Node]:
    """The matrix products that the node, or a view of it, is one operand of; none where anything else reads it."""
    found: list[Node] = []
    for user in node.users:
        if user.target in (_aten.mm.default, _aten.bmm.default):
            found.append(user)
        elif user.target in RESHAPING and (behind := _products_of(user)):
            found += behind
        else:
            return []
    return found if len(set(found)) == len(found) and all(len(one.all_input_nodes) == 2 for one in found) else []


def _convolutions_in_channels_last(graph: Graph) -> None:
    """Lay out the operands of convolutions in channels-last, as cuDNN's kernels take them; write those of one dimension as those of two.

    Inductor by itself does that for convolutions of two and three dimensions alone, and takes the pairs for the channels. The copy in
    channels-last that is made here is fused with the operation that makes the operand, and whatever else reads that reads the copy, so that
    nothing is written twice. Where groups of several channels are convolved, which is slower in channels-last, all stays as it is.
    """
    convolutions = graph.find_nodes(op="call_function", target=_aten.convolution.default)
    if any(node.args[-1] not in (1, node.args[0].meta["val"].shape[1]) for node in convolutions):
        return
    copies: dict[Node, Node] = {}
    for node in convolutions:
        operand, weight, bias, stride, padding, dilation, transposed, left_over, groups = node.args
        dims = len(stride)
        if node.meta["val"].dim() != dims + 2:
            continue
        copied = _in_channels_last(graph, operand, dims, copies)
        if dims > 1:
            node.args = (copied, *node.args[1:])
            continue
        with graph.inserting_before(node):
            planes = graph.call_function(_aten.unsqueeze.default, (weight, 2))
            geometry = ([1, *stride], [0, *padding], [1, *dilation], transposed, [0, *left_over], groups)
            made = graph.call_function(node.target, (copied, planes, bias, *geometry))
            squeezed = graph.call_function(_aten.squeeze.dim, (made, 2))
        squeezed.meta = node.meta
        node.replace_all_uses_with(squeezed)
        graph.erase_node(node)
    if copies:
        for node in graph.find_nodes(op="call_function", target=_aten.view.default):
            # A view needs the memory order that it was traced with; a reshape works in channels-last as well.
            node.target = _aten.reshape.default
        graph.eliminate_dead_code()


def _in_channels_last(graph: Graph, operand: Node, dims: int, copies: dict[Node, Node]) -> Node:
    """A copy of the operand in channels-last, as planes if ``dims`` is 1.

    Every reader of the operand reads the copy from now on, and so does every reader of the tensor that the operand is a view of, with other
    batch dimensions. ``copies``: those made so far, by the node in the operand's shape.
    """
    made = operand
    while made not in copies and made.target is _aten.view.default:
        (source,) = made.all_input_nodes
        if not _same_behind_batch(source, made, dims):
            break
        made = source
    if made in copies:
        if made is not operand:
            operand.replace_all_uses_with(made)
        return copies[made]
    readers = list(made.users)
    # Placeholders come first in a graph, so the copy of one goes behind the last of them.
    last = made
    while last.next.op == "placeholder":
        last = last.next
    with graph.inserting_before(last.next):
        rows = made if made is operand else _viewed(graph, made, operand)
        copied = rows if dims > 1 else graph.call_function(_aten.unsqueeze.default, (rows, 2))
        # Inductor takes out a copy that in eager mode has the layout of what is copied, and then chooses another one for that.
        for layout in (torch.contiguous_format, torch.channels_last_3d if dims == 3 else torch.channels_last):
            copied = graph.call_function(_aten.clone.default, (copied,), {"memory_format": layout})
        read = copied if dims > 1 else graph.call_function(_aten.squeeze.dim, (copied, 2))
        read.meta = operand.meta
        again = read if made is operand else _viewed(graph, read, made)
    for reader in readers:
        reader.replace_input_with(made, again)
    if made is not operand:
        operand.replace_all_uses_with(read)
    copies[read] = copied
    return copied


def _same_behind_batch(one: Node, other: Node, dims: int) -> bool:
    """Whether two tensors have the same channels and ``dims`` spatial dimensions, the last ones."""
    return bool(one.meta["val"].shape[-dims - 1 :] == other.meta["val"].shape[-dims - 1 :])


def _viewed(graph: Graph, node: Node, like: Node) -> Node:
    """A view of the node's tensor in the shape of another's."""
    view = graph.call_function(_aten.view.default, (node, list(like.meta["val"].shape)))
    view.meta = like.meta
    return view


def rescaled(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    rows: Tensor | int,
    function: str,
    parameters: Sequence[float],
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    """What :func:`deepshap_ext.ops.rescale` computes, for a function of ``SLOPES`` and finite numbers.

    ``rows`` may also be how often each baseline stands in them, if all do, in their order: what is known when Inductor makes a kernel, the
    kernel need not read.
    """
    inner = x.numel() // (outer * batch)
    each = r.reshape(outer, 1 if pairing == "grid" else batch, -1, inner).movedim(2, 0)
    if pairing == "aligned":
        theirs = each
    elif isinstance(rows, int):
        theirs = each.unsqueeze(1).expand(-1, rows, -1, -1, -1).flatten(0, 1)
    else:
        theirs = each.index_select(0, rows)
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    slope = SLOPES[function](x.reshape(outer, batch, inner).to(wide), theirs.to(wide), *parameters)
    # Not the grad is reshaped, which may lie in memory in an order of its own.
    return (grad.to(wide) * slope.reshape(-1, *x.shape)).to(grad.dtype)


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
