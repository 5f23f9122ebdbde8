"""Stages of a trace through torch.compile."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .traced import Stage


def compiled(stage: Stage, tell: Callable[[str], None]) -> Stage:
    """The stage as Inductor makes it, when it first runs; one that this cannot make stays as it is, and ``tell`` is given the reason."""
    if not any(node.op == "call_function" for node in stage.graph.graph.nodes):
        return stage
    graph = _pointwise(stage.graph)
    made: Callable[..., Any] = torch.compile(graph, fullgraph=True, dynamic=False)
    works = False

    def run(*values: Tensor) -> Sequence[Tensor]:
        nonlocal made, works
        try:
            found: Sequence[Tensor] = made(*values)
        except Exception as error:
            if works:
                raise
            tell(
                f"torch.compile does not take it ({type(error).__name__}: {str(error).splitlines()[0]}), so it is replayed as it is"
            )
            made = stage.run
            found = made(*values)
        works = True
        return found

    return replace(stage, run=run)


def _pointwise(module: GraphModule) -> GraphModule:
    """The graph with relu's multipliers in operations of torch's, which Inductor joins with those around them."""
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        if node.target is torch.ops.deepshap_ext.rescale.default and node.args[4] == "relu":
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.call_function(of_relu, _operands(node)))
            graph.erase_node(node)
    made = GraphModule(module, graph)
    # torch.compile writes attributes on the tensors of a module: on these, which share the memory of the model's own.
    for name, parameter in list(made.named_parameters(recurse=False, remove_duplicate=False)):
        delattr(made, name)
        made.register_buffer(name, parameter.detach())
    for name, buffer in list(made.named_buffers(recurse=False, remove_duplicate=False)):
        made.register_buffer(name, buffer.detach())
    return made


def _operands(node: Node) -> tuple[Any, ...]:
    grad, x, r, rows, _, _, outer, batch, pairing = node.args
    return grad, x, r, rows, outer, batch, pairing


def of_relu(grad: Tensor, x: Tensor, r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str) -> Tensor:
    """What :func:`deepshap_ext.ops.rescale` gives for relu, of finite numbers."""
    inner = x.numel() // (outer * batch)
    baselines = r.reshape(outer, -1, inner)
    if pairing == "grid":
        theirs = baselines.index_select(1, rows).movedim(1, 0).unsqueeze(2)
    elif pairing == "aligned":
        theirs = baselines.unsqueeze(0)
    else:
        theirs = baselines.unflatten(1, (batch, -1)).index_select(2, rows).movedim(2, 0)
    mine = x.reshape(outer, batch, inner)
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    mine, theirs = mine.to(wide), theirs.to(wide)
    apart = mine - theirs
    slope = torch.where(apart == 0, (mine > 0).to(wide), (mine.relu() - theirs.relu()) / apart)
    return (grad.reshape(len(grad), outer, batch, inner).to(wide) * slope).to(grad.dtype).reshape(grad.shape)
