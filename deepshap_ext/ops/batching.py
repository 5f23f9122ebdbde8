"""What the batching rules of the ops share: the cotangents of a vmap join the leading dimension of grad."""

from collections.abc import Sequence

import torch
from torch import Tensor


def fold(
    op: str,
    batch_size: int,
    in_dims: Sequence[int | None],
    names: Sequence[str],
    grad: Tensor,
    rows: Tensor,
) -> tuple[Tensor, Tensor]:
    """Join a vmapped dimension of `grad` [V, ...] (the first operand) and `rows` [V] (the last tensor) with V.

    `names` are the op's tensor operands, in order. Whatever is not batched is repeated; a batched x or r is refused: the
    operands belong to the model's own passes, only cotangents are vmapped.
    """
    rows_at = len(names) - 1
    for name, dim in zip(names[1:rows_at], in_dims[1:rows_at], strict=True):
        if dim is not None:
            raise ValueError(f"{op}: vmap goes over {names[0]} and rows only, but {name} is batched in dimension {dim}")
    grad_dim, rows_dim = in_dims[0], in_dims[rows_at]
    if grad_dim is None:
        grad = grad.expand(batch_size, *grad.shape)
    elif grad_dim != 0:
        grad = grad.movedim(grad_dim, 0)
    if rows_dim is None:
        rows = rows.expand(batch_size, *rows.shape)
    elif rows_dim != 0:
        rows = rows.movedim(rows_dim, 0)
    return grad.flatten(0, 1), rows.flatten(0, 1)


def unfold(out: Tensor, batch_size: int) -> Tensor:
    """[N * V, ...] as [N, V, ...]."""
    return out.unflatten(0, (batch_size, out.shape[0] // batch_size))


def empty_like_grad(grad: Tensor, x: Tensor) -> Tensor:
    """An elementwise op's result: the memory order of grad's parts where they are dense, else x's, else contiguous."""
    if grad.is_contiguous():
        return torch.empty_like(grad, memory_format=torch.contiguous_format)
    order = None
    if grad.shape[0] == 1 or grad.stride(0) == x.numel():
        order = _dense_order(grad.shape[1:], grad.stride()[1:])
    if order is None:
        order = _dense_order(x.shape, x.stride())
    if order is None:
        return torch.empty_like(grad, memory_format=torch.contiguous_format)
    strides, step = [0] * x.dim(), 1
    for dim in reversed(order):
        strides[dim] = step
        step *= x.shape[dim]
    return grad.new_empty_strided(grad.shape, (step, *strides))


def _dense_order(sizes: Sequence[int], strides: Sequence[int]) -> list[int] | None:
    """The dimensions from slowest to fastest where the elements fill memory without gaps, those of size 1 in front."""
    ones = [dim for dim, size in enumerate(sizes) if size == 1]
    order = sorted((dim for dim, size in enumerate(sizes) if size != 1), key=lambda dim: -strides[dim])
    step = 1
    for dim in reversed(order):
        if strides[dim] != step:
            return None
        step *= sizes[dim]
    return ones + order
