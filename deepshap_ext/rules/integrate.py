"""The rule for an operation that has none: its mean gradient along the segment from the baseline to the input.

That is integrated gradients (arXiv 1703.01365, section 3) of one operation, by Gauss-Legendre quadrature: complete for polynomials of
degree below twice the number of nodes, and nearly so for smooth functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .registry import Application

NODES = 32


def integrate(
    function: Callable[..., Any], args: Any, kwargs: Any, operands: Sequence[Tensor], nodes: int = NODES
) -> Application:
    """The application of any differentiable function of tensors that returns one tensor; ``operands`` are those of its arguments
    that carry multipliers."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    unique = list({id(operand): operand for operand in operands}.values())

    def run(*values: Tensor) -> Any:
        given = {id(operand): value for operand, value in zip(unique, values, strict=True)}
        replaced_args, replaced_kwargs = tree_map(lambda item: given.get(id(item), item), (args, kwargs))
        return function(*replaced_args, **replaced_kwargs)

    def forward(*values: Tensor) -> tuple[Any, Sequence[Tensor]]:
        return run(*values), values

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        pairs = [sides.pair(position) for position in range(len(unique))]
        totals: list[Tensor] = []
        for node, weight in zip((places + 1) / 2, weights / 2, strict=True):
            points = [(r + float(node) * (x - r)).expand_as(x) for x, r in pairs]
            parts = [float(weight) * part for part in torch.func.vjp(run, *points)[1](grad)]
            totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
        return totals

    return Application(unique, forward, multipliers)


def multilinear(function: Callable[..., Any], args: Any, operands: Sequence[Tensor], factors: int) -> Application:
    """The application of a product of ``factors`` factors, linear in each: their exact Shapley values.

    Those are the mean of its derivative along the segment (it is its own multilinear extension: Owen, Management Science 18, 1972), a
    polynomial of lower degree than there are factors, which half as many nodes integrate exactly. For two the one node is the midpoint.
    """
    return integrate(function, args, {}, operands, nodes=(factors + 1) // 2)
