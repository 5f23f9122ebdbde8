"""Walks over the autograd graph."""

from __future__ import annotations

from collections.abc import Iterable

from torch.autograd.graph import GradientEdge, Node


def following(node: Node) -> list[Node]:
    """What a node reads."""
    return [found for found, _ in node.next_functions if found is not None]


def depth_first(roots: Iterable[Node]) -> list[Node]:
    """The nodes that the roots are made from, each after those that it reads."""
    return _ordered(roots, frozenset())


def around(root: GradientEdge, edges: Iterable[GradientEdge]) -> list[Node]:
    """The nodes that the root is made from other than through these edges, each after those that it reads."""
    closed = frozenset((edge.node, edge.output_nr) for edge in edges)
    return [] if (root.node, root.output_nr) in closed else _ordered([root.node], closed)


def _ordered(roots: Iterable[Node], closed: frozenset[tuple[Node, int]]) -> list[Node]:
    order: list[Node] = []
    opened: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in opened:
            opened.add(node)
            stack.append((node, True))
            stack.extend((edge[0], False) for edge in node.next_functions if edge[0] is not None and edge not in closed)
    return order
