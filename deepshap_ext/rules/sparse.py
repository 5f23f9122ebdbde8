"""Products with a constant sparse matrix, such as a graph's adjacency: linear, but torch's backward of them has no batching rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedOperationError
from .registry import Application, Context, rule


def sparse_product(input: Tensor, other: Tensor) -> Application | None:
    """The application of ``input @ other`` for a sparse factor; None where both are dense."""
    if input.layout == other.layout == torch.strided:
        return None
    left = input.layout != torch.strided
    matrix, dense = (input, other) if left else (other, input)
    if matrix.dim() != 2 or dense.dim() > 2:
        raise UnsupportedOperationError(
            f"has no rule for a sparse factor of shape {list(matrix.shape)} and a dense one of shape {list(dense.shape)}: a sparse matrix "
            f"times a matrix or a vector has one"
        )
    # Copied, because the model may later write into its matrix in place. `A x` has the multipliers `A^T m`, `x A` has `m A^T = (A m^T)^T`.
    copied = matrix.detach().to_sparse_coo().clone()
    adjoint = partial(torch.sparse.mm, copied.t().coalesce() if left else copied)

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return torch.matmul(matrix, x) if left else torch.matmul(x, matrix), []

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        columns = grad.unsqueeze(1) if grad.dim() == 1 else grad if left else grad.mT
        found: Tensor = _OnColumns.apply(adjoint, columns)  # type: ignore[no-untyped-call]
        return [found.squeeze(1) if grad.dim() == 1 else found if left else found.mT]

    return Application([dense], forward, multipliers)


class _OnColumns(torch.autograd.Function):
    """A map of matrices that acts on their columns; under vmap, all matrices are one with so many more columns."""

    @staticmethod
    def forward(function: Callable[[Tensor], Tensor], columns: Tensor) -> Tensor:
        return function(columns)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[[Tensor], Tensor], columns: Tensor) -> tuple[Tensor, int]:
        every = columns.movedim(in_dims[1], 2)
        return function(every.flatten(1)).unflatten(1, every.shape[1:]), 2


@rule("_sparse_mm")
def _sparse_mm(context: Context, mat1: Tensor, mat2: Tensor) -> Application | None:
    if context.carries(mat1) and context.carries(mat2):
        raise UnsupportedOperationError(
            "has no rule where both factors depend on the explained input: write torch.matmul"
        )
    return sparse_product(mat1, mat2)
