"""What the fakes and the batching rules of the ops share."""

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


def register_vmap(name: str, tensors: Sequence[str]) -> None:
    """Batch an op over its first tensor [V, ...] and its last, rows [V]: the vmapped dimension joins V.

    `tensors` names the tensors, which come first among the op's arguments. What is not batched is repeated; the tensors in
    between are the model's own operands, never batched, and refused.

    `torch.library.register_vmap` costs 170 us a call, most of it walks over nested arguments, which these ops do not
    have. A kernel of our own at the same dispatch key costs a tenth, where torch has what it takes.
    """
    op = getattr(torch.ops.deepshap_ext, name).default
    rule = batching_rule(op, name, tensors)
    if HAS_DIRECT:
        _library.impl(name, _direct_kernel(op, rule, len(tensors)), "FuncTorchBatched")
    else:
        torch.library.register_vmap(op, public_rule(rule, len(op._schema.returns)), lib=_library)


def batching_rule(op: Any, name: str, tensors: Sequence[str]) -> BatchingRule:
    """rule(in_dims of the tensors, *arguments): the outputs, batched in dimension 0."""
    single = len(op._schema.returns) == 1
    last = len(tensors) - 1

    def rule(in_dims: Sequence[int | None], *arguments: Any) -> tuple[Tensor, ...]:
        for tensor, dim in zip(tensors[1:last], in_dims[1:last], strict=True):
            if dim is not None:
                raise ValueError(
                    f"{name}: vmap goes over {tensors[0]} and rows only, but {tensor} is batched in dimension {dim}"
                )
        leading, rows = arguments[0], arguments[last]
        size = rows.shape[in_dims[last]] if in_dims[0] is None else leading.shape[in_dims[0]]
        leading, rows = _fold(leading, in_dims[0], size), _fold(rows, in_dims[last], size)
        outs = op(leading, *arguments[1:last], rows, *arguments[last + 1 :])
        return tuple(out.reshape(size, out.shape[0] // size, *out.shape[1:]) for out in ((outs,) if single else outs))

    return rule


def _fold(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    if dim is None:
        tensor = tensor.expand(size, *tensor.shape)
    elif dim != 0:
        tensor = tensor.movedim(dim, 0)
    return tensor.flatten(0, 1)


def public_rule(rule: BatchingRule, returns: int) -> Callable[..., tuple[Any, Any]]:
    """The rule in the form that `torch.library.register_vmap` takes."""

    def vmap(_: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
        outs = rule(in_dims, *arguments)
        return (outs[0], 0) if returns == 1 else (outs, (0,) * returns)

    return vmap


def _direct_kernel(op: Any, rule: BatchingRule, tensors: int) -> Callable[..., Any]:
    single = len(op._schema.returns) == 1

    def kernel(*arguments: Any) -> Any:
        level = maybe_current_level()
        pairs = [_unwrap_batched(tensor, level) for tensor in arguments[:tensors]]
        with _ExcludeDispatchKeyGuard(_BATCHED):
            if all(dim is None for _, dim in pairs):
                return op(*arguments)
            outs = rule([dim for _, dim in pairs], *[tensor for tensor, _ in pairs], *arguments[tensors:])
        outs = tuple(_add_batch_dim(out, 0, level) for out in outs)
        return outs[0] if single else outs

    return kernel


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
