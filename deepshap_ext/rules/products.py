"""Products of input-dependent factors: each factor's multiplier is the mean of the other over both sides.

That is the Shapley value of the two factors (Lundberg and Lee, arXiv 1705.07874, section 2.2, for two players), and complete:
``ab - a'b' = mean(b) (a - a') + mean(a) (b - b')``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .registry import Application, Carries, rule


@rule("mul", "rmul")
def _mul(carries: Carries, input: Any, other: Any) -> Application | None:
    if not (carries(input) and carries(other)):
        return None
    dtype = torch.result_type(input, other)
    a, b = input.to(dtype), other.to(dtype)

    def forward(a: Tensor, b: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        product = torch.mul(a, b)
        return product, [a.expand_as(product), b.expand_as(product)]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        (a_x, b_x), (a_r, b_r) = sides.x, sides.r
        found = ops.product(grad.unsqueeze(0), a_x, a_r, b_x, b_r, sides.rows(), *sides.geometry())
        return [sum_to(m.squeeze(0), operand.shape) for m, operand in zip(found, (a, b), strict=True)]

    return Application([a, b], forward, multipliers, stand_for=[input, other])


def sum_to(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Sum over the dimensions along which an operand of this shape was broadcast."""
    if leading := tensor.dim() - len(shape):
        tensor = tensor.sum(tuple(range(leading)))
    dims = tuple(dim for dim, size in enumerate(shape) if size == 1 and tensor.shape[dim] != 1)
    return tensor.sum(dims, keepdim=True) if dims else tensor
