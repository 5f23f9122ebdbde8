"""Convolutions with constant weights: linear, and their multiplier is the transposed convolution.

Autograd's own backward is the same map. But it keeps the input alive for a weight gradient that nobody asks for, and its batching rule
allocates a dummy of that input for every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnsupportedOperationError
from .formats import has_channels_last, padded
from .products import bilinear
from .registry import Application, Context, rule


def each(value: Any, dims: int) -> tuple[int, ...]:
    """One number a dimension, from an argument of torch that is one number for all dimensions or one for each."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * dims if len(values) == 1 else values


def _weight_varies(context: Context, weight: Tensor, bias: Any) -> bool:
    """Whether the weight depends on the explained input; a bias that does is refused."""
    if context.carries(bias):
        raise UnsupportedOperationError("has no rule for a bias that depends on the explained input: add it afterwards")
    return context.carries(weight)


#: oneDNN works on blocks of so many channels: its transposed convolutions are slow on fewer, as cuDNN's strided ones are. The gain from
#: avoiding them is measured by `benchmarks/transposed.py`, as for WIDE.
BLOCK = 16
#: oneDNN's fast kernels take paddings up to about so many elements.
WIDE = 8

# Indexed by the number of dimensions less one.
_CONVOLVE: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSE: tuple[Callable[..., Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def transposed_convolution(
    grad: Tensor,
    weight: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
    channels_last: bool = False,
) -> Tensor:
    """``[N, channels, *size]``: the transpose of the convolution with these arguments, by whichever way is fastest.

    ``grad`` ``[N, output channels, *output size]``; ``size``, ``stride``, ``padding`` and ``dilation`` have one number a dimension.
    ``channels_last``: the memory format of the result, where torch's convolution does not choose one.
    """
    kernel, dims = tuple(weight.shape[2:]), weight.dim() - 2
    stride, dilation = tuple(stride), tuple(dilation)
    transpose = _TRANSPOSE[dims - 1]
    on_cpu, strided, points = grad.device.type == "cpu", max(stride) > 1, kernel == (1,) * dims
    if groups == 1 and max(dilation) == 1 and strided:
        if on_cpu and points and not any(padding):
            spread = transpose(grad, weight)
            spread = spread.movedim(1, -1) if channels_last else spread
            first = 1 if channels_last else 2
            for dim in range(dims):
                spread = spread.unsqueeze(first + 1 + 2 * dim)
            edges = [side for s in reversed(stride) for side in (0, s - 1, 0, 0)]
            return _interleaved(F.pad(spread, [0, 0, *edges] if channels_last else edges), size, channels_last)
        patches = kernel == stride and not any(padding)
        if patches or weight.shape[1] < BLOCK:
            return _by_phases(grad, weight, stride, padding, size, channels_last)
    # By how much the flipped kernel reaches beyond grad on each side: the padding of an ordinary convolution with it.
    beyond = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    wide = max(beyond) > WIDE
    if (
        on_cpu
        and groups == 1
        and not strided
        and min(beyond) >= 0
        and (len(weight) < BLOCK or (wide and max(dilation) > 1))
    ):
        if wide:
            grad = padded(grad, beyond)
            beyond = [0] * dims
        turned_round = weight.flip(*range(2, dims + 2)).transpose(0, 1)
        return _CONVOLVE[dims - 1](grad, turned_round, None, 1, beyond, dilation)
    # The elements at the end of the input that the strides did not reach: torch's output_padding.
    left_over = [
        n - ((g - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, g, s, p, d, k in zip(size, grad.shape[2:], stride, padding, dilation, kernel, strict=True)
    ]
    return transpose(grad, weight, None, stride, padding, left_over, groups, dilation)


def _by_phases(
    grad: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    size: Sequence[int],
    channels_last: bool,
) -> Tensor:
    """A strided transposed convolution as an ordinary one, with an output channel for each position between two strides.

    ``out[s m + r] = sum_j w[r + p - s j] grad[m + j]`` in each dimension: for every ``r`` a kernel of its own over the same ``j``.
    """
    dims = len(stride)
    edges = []
    for dim, (s, p, n, k) in enumerate(zip(stride, padding, size, weight.shape[2:], strict=True)):
        low, high = -((k - 1 - p) // s), (s - 1 + p) // s
        r, j = torch.arange(s, device=weight.device), torch.arange(low, high + 1, device=weight.device)
        taps = r[:, None] + p - s * j
        taps = taps.where((taps >= 0) & (taps < k), k)  # outside of the kernel: the zero that is padded behind it
        at = 2 + 2 * dim
        weight = F.pad(weight, [0, 0] * (weight.dim() - at - 1) + [0, 1]).index_select(at, taps.flatten())
        weight = weight.unflatten(at, taps.shape)
        positions = -(-n // s)
        edges.append((-low, positions - 1 + high - (grad.shape[2 + dim] - 1), positions))
    within = range(2, 2 + 2 * dims, 2)
    kernels = weight.permute(1, *within, 0, *(dim + 1 for dim in within)).flatten(0, dims)
    # Both sides are padded as the wider one needs, and the surplus is cut from the result, which copies less than padding grad would.
    padding = [max(before, behind, 0) for before, behind, _ in edges]
    phases = _CONVOLVE[dims - 1](grad, kernels, None, 1, padding)
    for dim, (before, _, positions) in enumerate(edges, 2):
        phases = phases.narrow(dim, padding[dim - 2] - before, positions)
    phases = phases.unflatten(1, (-1, *stride))  # [N, channels, *stride, *positions]
    pairs = [at for dim in range(2, 2 + dims) for at in (dims + dim, dim)]
    phases = phases.permute(0, *pairs, 1) if channels_last else phases.permute(0, 1, *pairs)
    return _interleaved(phases, size, channels_last)


def _interleaved(phases: Tensor, size: Sequence[int], channels_last: bool) -> Tensor:
    """``[N, channels, *size]`` from ``[N, channels, positions, stride, ...]``, which has two dimensions for each of ``size``.

    With ``channels_last``, phases are ``[N, positions, stride, ..., channels]`` and the result keeps that memory order.
    """
    for dim, n in enumerate(size, 1 if channels_last else 2):
        phases = phases.flatten(dim, dim + 1).narrow(dim, 0, n)
    return phases.movedim(-1, 1) if channels_last else phases


def _scaled(grad: Tensor, weight: Tensor, sides: Any, of_weight: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """``grad``, and the weight in its dtype; where there is a ``sides.scale``, the one with fewer elements is multiplied by it.

    ``of_weight(scale)`` reshapes the scale, one number an output channel, to broadcast over the weight's first two dimensions.
    """
    if sides.scale is not None:
        within = [1] * (weight.dim() - 2)
        if weight.numel() <= grad.numel() * sides.cotangents:
            factors = of_weight(sides.scale.to(weight.dtype))
            weight = weight * factors.view(*factors.shape, *within)
        else:
            grad = grad * sides.scale.to(grad.dtype).view(-1, *within)
    # Autocast convolves in another dtype than the weight has.
    return grad, weight.to(grad.dtype)


def _register(dims: int) -> None:
    convolve, transpose = _CONVOLVE[dims - 1], _TRANSPOSE[dims - 1]

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
        size, channels_last = operand.shape[-dims:], has_channels_last(operand)

        def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            return convolve(x, weight, bias, steps, edges, spread, groups), []

        def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
            grad, scaled = _scaled(grad, weight, sides, lambda scale: scale.unsqueeze(1))
            return [transposed_convolution(grad, scaled, size, steps, edges, groups, spread, channels_last)]

        # Of an input without a batch dimension, dimension 1 is not the channels that a scale is for.
        return Application([operand], forward, multipliers, stand_for=[input], takes_scale=input.dim() == dims + 2)

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
            inputs = len(weight) // groups
            grad, scaled = _scaled(
                grad, weight, sides, lambda scale: scale.view(groups, -1).repeat_interleave(inputs, 0)
            )
            return [convolve(grad, scaled, None, stride, padding, dilation, groups)]

        return Application([input], forward, multipliers, takes_scale=input.dim() == dims + 2)


for _dims in (1, 2, 3):
    _register(_dims)
