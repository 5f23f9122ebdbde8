"""Convolutions with constant weights: linear, and their multiplier is the transposed convolution.

Autograd's own backward is the same map; but it keeps the input alive for a weight gradient that nobody asks for, and its batching rule
copies a dummy of that input for every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import UnsupportedOperationError
from .products import bilinear
from .registry import Application, Context, rule


def each(value: Any, dims: int) -> tuple[int, ...]:
    """One number a dimension, from torch's one or one a dimension."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * dims if len(values) == 1 else values


def _weight_varies(context: Context, weight: Tensor, bias: Any) -> bool:
    """Whether the weight depends on the explained input; a bias that does is refused."""
    if context.carries(bias):
        raise UnsupportedOperationError("has no rule for a bias that depends on the explained input: add it afterwards")
    return context.carries(weight)


#: oneDNN's transposed convolutions work on blocks of so many channels: with fewer, an ordinary convolution with the weight turned round is
#: faster, up to seventy times. And its fast kernels take paddings up to about so many elements (`benchmarks/transposed.py`).
BLOCK = 16
WIDE = 8


def transposed_convolution(
    grad: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    left_over: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> Tensor:
    """``conv_transpose``, with ``left_over`` for ``output_padding``, the fastest way. One number a dimension each."""
    kernel, dims = weight.shape[2:], weight.dim() - 2
    simple = groups == 1 and set(dilation) == {1} and not any(padding)
    if simple and kernel.numel() > 1 and tuple(kernel) == tuple(stride):
        return _patches(grad, weight, left_over)
    # How far the weight, turned round, reaches beyond grad.
    beyond = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    wide = max(beyond) > WIDE
    turned = len(weight) < BLOCK or (wide and max(dilation) > 1)
    if grad.device.type == "cpu" and turned and set(stride) == {1} and groups == 1 and min(beyond) >= 0:
        convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        if wide:
            grad = F.pad(grad, [side for amount in reversed(beyond) for side in (amount, amount)])
            beyond = [0] * dims
        turned_round = weight.flip(*range(2, dims + 2)).transpose(0, 1)
        return convolve(grad, turned_round, None, 1, beyond, tuple(dilation))
    transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    return transpose(grad, weight, None, stride, padding, left_over, groups, dilation)


def _patches(grad: Tensor, weight: Tensor, left_over: Sequence[int]) -> Tensor:
    """The transposed convolution whose kernels do not overlap: a matrix product for each patch."""
    dims = weight.dim() - 2
    columns = weight.flatten(1).t() @ grad.flatten(2)
    columns = columns.unflatten(1, weight.shape[1:]).unflatten(-1, grad.shape[2:])  # [N, channels, *kernel, *patches]
    patches = columns.permute(0, 1, *[side for dim in range(2, dims + 2) for side in (dims + dim, dim)])
    for dim in range(2, dims + 2):
        patches = patches.flatten(dim, dim + 1)
    return F.pad(patches, [side for amount in reversed(left_over) for side in (0, amount)])


def _register(dims: int) -> None:
    convolve: Callable[..., Tensor] = getattr(F, f"conv{dims}d")
    transpose: Callable[..., Tensor] = getattr(F, f"conv_transpose{dims}d")

    @rule(f"conv{dims}d")
    def convolution(
        context: Context,
        input: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Application | None:
        if _weight_varies(context, weight, bias):
            rest = (bias, stride, padding, dilation, groups)
            return bilinear(lambda x, w: convolve(x, w, *rest), input, weight) if context.carries(input) else None
        kernel = weight.shape[2:]
        steps, spread = each(stride, dims), each(dilation, dims)
        operand = input
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(spread, kernel, strict=True)]
            if any(amount % 2 for amount in total):
                # The odd element goes to the end, as in torch.
                operand = F.pad(input, [side for amount in reversed(total) for side in (0, amount % 2)])
            edges = tuple(amount // 2 for amount in total)
        else:
            edges = (0,) * dims if padding == "valid" else each(padding, dims)
        size = operand.shape[-dims:]

        def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            return convolve(x, weight, bias, steps, edges, spread, groups), []

        def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
            # What a stride leaves over at the end of the input.
            left_over = [
                n - ((g - 1) * s - 2 * p + d * (k - 1) + 1)
                for n, g, s, p, d, k in zip(size, grad.shape[-dims:], steps, edges, spread, kernel, strict=True)
            ]
            # Autocast convolves in another dtype than the weight has.
            return [transposed_convolution(grad, weight.to(grad.dtype), steps, edges, left_over, groups, spread)]

        return Application([operand], forward, multipliers, stand_for=[input])

    @rule(f"conv_transpose{dims}d")
    def transposed(
        context: Context,
        input: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Application | None:
        rest = (bias, stride, padding, output_padding, groups, dilation)
        if _weight_varies(context, weight, bias):
            return bilinear(lambda x, w: transpose(x, w, *rest), input, weight) if context.carries(input) else None

        def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            return transpose(x, weight, *rest), []

        def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
            return [convolve(grad, weight.to(grad.dtype), None, stride, padding, dilation, groups)]

        return Application([input], forward, multipliers)


for _dims in (1, 2, 3):
    _register(_dims)
