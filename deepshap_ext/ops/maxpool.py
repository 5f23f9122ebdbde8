"""The routing rule of a maximum over windows."""

import math

import torch
from torch import Tensor

from .batching import register_vmap

_op = torch.ops.deepshap_ext.maxpool.default


def maxpool(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    x_indices: Tensor,
    r_indices: Tensor,
    rows: Tensor,
    dims: int,
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    """Give each window's multiplier to the place that accounts for the difference of the two maxima.

    With p and q the places of the maxima of x and r in a window, o(x) = x[p] and o(r) = r[q]:

        p == q            weight 1 at p
        o(x) >= o(r)      weight (o(x) - o(r)) / (x[p] - r[p]) at p
        otherwise         weight (o(x) - o(r)) / (x[q] - r[q]) at q

    Weights lie in [0, 1], 1 where the denominator is 0; where windows overlap, their shares add up.

    Shapes: x (outer, batch, inner) with the batch outside of its last `dims` dimensions, the pooled ones; r likewise;
    x_indices and r_indices as `torch.nn.functional.max_pool2d(..., return_indices=True)` gives them: flat positions in the
    pooled dimensions, whatever the windows; grad [V, *x_indices.shape]; rows [V], int64; the result [V, *x.shape].

    Contiguous and channels-last operands are taken as they are, and the result lies in memory as grad does, a single window's as x does;
    operands in another memory format are copied.
    """
    return _op(grad, x, r, x_indices, r_indices, rows, dims, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::maxpool")
def _fake(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    x_indices: Tensor,
    r_indices: Tensor,
    rows: Tensor,
    dims: int,
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    shape, channels = (grad.shape[0], *x.shape), x.dim() - dims - 1
    if _has_channels_last(grad, x, r, channels, x.numel() // (outer * batch)):
        return grad.new_empty((*shape[: channels + 1], *shape[channels + 2 :], shape[channels + 1])).movedim(
            -1, channels + 1
        )
    return grad.new_empty(shape)


def _has_channels_last(grad: Tensor, x: Tensor, r: Tensor, channels: int, inner: int) -> bool:
    """Whether the result's dimension `channels` of x runs fastest: `arrange_maxpool` in csrc/ops/maxpool.h says the same."""
    if channels < 0 or x.shape[channels] != r.shape[channels] or inner % max(1, math.prod(x.shape[channels:])):
        return False
    for tensor, dim in ((grad, channels + 1), (x, channels)):
        last = tensor.movedim(dim, -1).is_contiguous()
        if last != tensor.is_contiguous():
            return last
    return False


register_vmap("maxpool", ("grad", "x", "r", "x_indices", "r_indices", "rows"))
