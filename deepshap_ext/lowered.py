"""Graphs of ATen's operations as Python functions that spend as little time as possible around each operation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

_aten = torch.ops.aten

#: Functions of torch for the most frequent ATen operations: they read their arguments in half of the time of ``torch.ops``, or less.
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **{
        getattr(_aten, name).default: getattr(torch, name)
        for name in """
        abs addmm bmm cat clone convolution cos cumsum embedding erf exp gather index_select mm native_layer_norm neg permute relu
        rsqrt sigmoid sin sqrt stack t tanh tril unsqueeze
        """.split()
    },
    **{getattr(_aten, name).Tensor: getattr(torch, name) for name in "add div eq ge gt le lt mul ne sub".split()},
    **{getattr(_aten, name).default: getattr(Tensor, name) for name in "expand repeat view".split()},
    _aten.mean.dim: torch.mean,
    _aten.select.int: torch.select,
    _aten.sum.default: torch.sum,
    _aten.sum.dim_IntList: torch.sum,
    _aten.transpose.int: torch.transpose,
}


def function_of(module: GraphModule) -> Callable[..., Sequence[Tensor]]:
    """A function that does what the module's forward does."""
    graph = copy.deepcopy(module.graph)
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.target is _aten._to_copy.default and [*node.kwargs] == ["dtype"]:
            node.target, node.kwargs = Tensor.to, {**node.kwargs, "copy": True}
        else:
            node.target = _FUNCTIONS.get(node.target, node.target)
    forward = type(GraphModule(module, graph)).forward
    # Tensors are plain attributes of a namespace here, since looking one up in a module takes a microsecond.
    held = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    return partial(forward, SimpleNamespace(**{name: getattr(module, name) for name in held}))
