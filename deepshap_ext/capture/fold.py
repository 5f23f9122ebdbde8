"""Scales of channels, a batch norm's, are left to the convolution before it, whose weight is smaller than the gradients of all pairs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from .applied import is_rule
from .forward import Pass
from .nodes import depth_first


def fold(graph: Pass) -> None:
    """Have operations that can take over the scale of what reads their result do so, where nothing else reads it and nobody explains it."""
    if all(entry.scale is None for entry in graph.tape.entries):
        return
    nodes = depth_first([get_gradient_edge(graph.output).node])
    readers = Counter(edge for node in nodes for edge in node.next_functions)
    explained = {(edge.node, edge.output_nr) for edge in graph.edges}
    rules: list[Any] = [node for node in nodes if is_rule(node)]
    for node in rules:
        if node.entry.scale is None:
            continue
        (source,) = node.next_functions
        if is_rule(source[0]) and source[0].entry.takes_scale and readers[source] == 1 and source not in explained:
            source[0].entry.taken, node.entry.scale = node.entry.scale, None
            node.entry.multipliers = _handed_on


def _handed_on(grad: Tensor, sides: Any) -> list[Tensor]:
    """The multipliers of an operation whose scale another has taken over: the gradient as it is."""
    return [grad]
