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

from ..capture.dependence import tensors_in
from ..capture.writes import Contents
from ..errors import UnsupportedOperationError
from .registry import Application

NODES = 32


def integrate(
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
    operands: Sequence[Tensor],
    nodes: int = NODES,
    opaque: bool = False,
) -> Application:
    """The application of any differentiable function of tensors that returns one tensor; ``operands`` are those of its arguments
    that carry multipliers. ``opaque``: it has a backward but may have no batching rule: one pair at a time."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    unique = list({id(operand): operand for operand in operands}.values())

    def run(*values: Tensor) -> Any:
        given = {id(operand): value for operand, value in zip(unique, values, strict=True)}
        replaced_args, replaced_kwargs = tree_map(lambda item: given.get(id(item), item), (args, kwargs))
        return function(*replaced_args, **replaced_kwargs)

    def forward(*values: Tensor) -> tuple[Any, Sequence[Tensor]]:
        result = run(*values)
        if not isinstance(result, Tensor):
            raise UnsupportedOperationError(
                f"a mean gradient along the segment needs a function that returns one tensor, got {type(result).__name__}"
            )
        return result, values

    def gradients(grad: Tensor, *points: Tensor) -> Sequence[Tensor]:
        if opaque:
            # It runs outside of the capture here, and may write into what it is given besides the operands.
            contents = Contents()
            for tensor in tensors_in((args, kwargs)):
                if not any(tensor is operand for operand in unique):
                    contents.before_write(tensor)
            try:
                return _OneByOne.apply(run, grad, *points)  # type: ignore[no-untyped-call]
            finally:
                contents.put_back()
        return torch.func.vjp(run, *points)[1](grad)

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        pairs = [sides.pair(position) for position in range(len(unique))]
        totals: list[Tensor] = []
        for node, weight in zip((places + 1) / 2, weights / 2, strict=True):
            points = [(r + float(node) * (x - r)).expand_as(x) for x, r in pairs]
            parts = [float(weight) * part for part in gradients(grad, *points)]
            totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
        return totals

    return Application(unique, forward, multipliers)


class _OneByOne(torch.autograd.Function):
    """The gradients of a function at some points, in a loop over what is vmapped."""

    @staticmethod
    def forward(run: Callable[..., Tensor], grad: Tensor, *points: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [point.detach().clone().requires_grad_() for point in points]
            found = torch.autograd.grad(run(*leaves), leaves, grad, allow_unused=True)
        return tuple(torch.zeros_like(leaf) if one is None else one for one, leaf in zip(found, leaves, strict=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, run: Callable[..., Tensor], *tensors: Tensor) -> tuple[Any, Any]:
        found = []
        for number in range(info.batch_size):
            one = [t if dim is None else t.select(dim, number) for t, dim in zip(tensors, in_dims[1:], strict=True)]
            found.append(_OneByOne.forward(run, *one))
        stacked = tuple(torch.stack(parts) for parts in zip(*found, strict=True))
        return stacked, (0,) * len(stacked)


def multilinear(function: Callable[..., Any], args: Any, operands: Sequence[Tensor], factors: int) -> Application:
    """The application of a product of ``factors`` factors, linear in each: their exact Shapley values.

    Those are the mean of its derivative along the segment (it is its own multilinear extension: Owen, Management Science 18, 1972), a
    polynomial of lower degree than there are factors, which half as many nodes integrate exactly. For two the one node is the midpoint.
    """
    return integrate(function, args, {}, operands, nodes=(factors + 1) // 2)
