"""Batching rules of the ops for ``torch.func.vmap``, and the memory order of results, for their fakes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .loading import NAMESPACE

try:
    from torch._C import DispatchKey, DispatchKeySet, _ExcludeDispatchKeyGuard
    from torch._C._functorch import _add_batch_dim, _unwrap_batched, maybe_current_level
except ImportError:  # private names, which another torch may lack
    HAS_DIRECT = False
else:
    HAS_DIRECT = True
    _BATCHED = DispatchKeySet(DispatchKey.FuncTorchBatched)

_library = torch.library.Library(NAMESPACE, "FRAGMENT")

BatchingRule = Callable[..., tuple[Tensor, ...]]


def register_vmap(name: str, tensors: Sequence[str], batched: BatchingRule | None = None, leading: int = 1) -> None:
    """Batch an op over its first tensor [V, ...] and its last, rows [V]; by default the vmapped dimension joins V.

    `tensors` names the tensors, which come first among the op's arguments. Those between the first and the last are the
    model's own operands, which are never batched: the rule refuses it. `batched(in_dims of the tensors, *arguments)`
    returns the outputs batched in dimension 0; with such a rule the first `leading` tensors may be batched.

    `torch.library.register_vmap` costs 170 us a call, most of it for walks over nested arguments, which these ops do
    not have. A kernel at the same dispatch key, where torch has the private functions for it, costs a fraction.
    """
    op = getattr(torch.ops.deepshap_ext, name).default
    rule = checked_rule(name, tensors, batched or joined_rule(op, len(tensors)), leading)
    if HAS_DIRECT:
        _library.impl(name, _direct_kernel(op, rule, len(tensors)), "FuncTorchBatched")
    else:
        torch.library.register_vmap(op, public_rule(rule), lib=_library)


def checked_rule(name: str, tensors: Sequence[str], batched: BatchingRule, leading: int = 1) -> BatchingRule:
    """The rule `batched`, which refuses batched operands first."""

    def rule(in_dims: Sequence[int | None], *arguments: Any) -> tuple[Tensor, ...]:
        for tensor, dim in zip(tensors[leading:-1], in_dims[leading : len(tensors) - 1], strict=True):
            if dim is not None:
                over = ", ".join(tensors[:leading])
                raise ValueError(
                    f"{name}: vmap goes over {over} and rows only, but {tensor} is batched in dimension {dim}"
                )
        return batched(in_dims, *arguments)

    return rule


def joined_rule(op: Any, tensors: int) -> BatchingRule:
    """The default rule: the vmapped dimension joins dimension 0 of the first and of the last tensor."""
    single = len(op._schema.returns) == 1
    last = tensors - 1

    def batched(in_dims: Sequence[int | None], *arguments: Any) -> tuple[Tensor, ...]:
        leading, rows = arguments[0], arguments[last]
        size = rows.shape[in_dims[last]] if in_dims[0] is None else leading.shape[in_dims[0]]
        leading, rows = in_front(leading, in_dims[0], size), in_front(rows, in_dims[last], size)
        outs = op(leading.flatten(0, 1), *arguments[1:last], rows.flatten(0, 1), *arguments[tensors:])
        return tuple(out.reshape(*leading.shape[:2], *out.shape[1:]) for out in ((outs,) if single else outs))

    return batched


def in_front(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with its vmapped dimension `dim`, of that size, in front; where it has none (None), expanded to one."""
    if dim is None:
        return tensor.expand(size, *tensor.shape)
    return tensor if dim == 0 else tensor.movedim(dim, 0)


def public_rule(rule: BatchingRule) -> Callable[..., tuple[Any, Any]]:
    """The rule in the form that `torch.library.register_vmap` takes."""

    def vmap(_: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
        outs = rule(in_dims, *arguments)
        return (outs[0], 0) if len(outs) == 1 else (outs, (0,) * len(outs))

    return vmap


def _direct_kernel(op: Any, rule: BatchingRule, tensors: int) -> Callable[..., Any]:
    """The rule as a kernel for the dispatch key of vmap."""
    single = len(op._schema.returns) == 1

    def kernel(*arguments: Any) -> Any:
        level = maybe_current_level()
        assert level is not None  # this dispatch key is set inside of a vmap only
        pairs = [_unwrap_batched(tensor, level) for tensor in arguments[:tensors]]
        with _ExcludeDispatchKeyGuard(_BATCHED):
            if all(dim is None for _, dim in pairs):
                return op(*arguments)
            outs = rule([dim for _, dim in pairs], *[tensor for tensor, _ in pairs], *arguments[tensors:])
        outs = tuple(_add_batch_dim(out, 0, level) for out in outs)
        return outs[0] if single else outs

    return kernel


def empty_like_leading(
    grad: Tensor, x: Tensor, r: Tensor, outer: int, batch: int, leading: int = 1, dtype: torch.dtype | None = None
) -> Tensor:
    """The result of an elementwise op, of shape [last of grad's leading dimensions, *x.shape].

    Its memory order is that of grad's parts where they are dense, else that of x, else contiguous: `arrange` in
    csrc/ops/layout.h says the same.
    """
    sizes = (grad.shape[leading - 1], *x.shape)
    order = None
    if not grad.is_contiguous() and _batch_is_in_one_dimension(x.shape, r.shape, outer, batch):
        order = _order(grad, x, leading)
    if order is None:
        return grad.new_empty(sizes, dtype=dtype)
    strides, step = [0] * x.dim(), 1
    for dim in reversed(order):
        strides[dim] = step
        step *= x.shape[dim]
    return grad.new_empty_strided(sizes, (step, *strides), dtype=dtype)


def _batch_is_in_one_dimension(x: Sequence[int], r: Sequence[int], outer: int, batch: int) -> bool:
    """Whether (outer, batch, inner) splits a single dimension of x's shape, or x and r have the same shape."""
    if x != r:
        return True
    front = 1
    for size in x:
        if outer % front == 0 and size % (outer // front * batch) == 0:
            return True
        front *= size
    return False


def _order(grad: Tensor, x: Tensor, leading: int) -> list[int] | None:
    """The dimensions of x from slowest to fastest in memory, as grad's parts have them, or x itself; None for neither."""
    step, parts = x.numel(), True
    for dim in reversed(range(leading)):
        parts = parts and (grad.shape[dim] == 1 or grad.stride(dim) == step)
        step *= grad.shape[dim]
    order = _dense_order(grad.shape[leading:], grad.stride()[leading:]) if parts else None
    return order or _dense_order(x.shape, x.stride())


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
