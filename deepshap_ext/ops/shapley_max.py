"""The Shapley rule of a maximum."""

from typing import Any

import torch
from torch import Tensor

from .batching import register_vmap

_op = torch.ops.deepshap_ext.shapley_max.default


def shapley_max(grad: Tensor, x: Tensor, r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str) -> Tensor:
    """Share each maximum over the last dimension by the exact Shapley values of its entries, each at x_i or r_i.

        m_i = grad * phi_i / (x_i - r_i),   sum_i phi_i = max x - max r

    phi_i / (x_i - r_i) lies in [0, 1]; it is 0 where x_i = r_i (the limits from above and from below differ there) and for
    entries at -inf on both sides, padding. Other infinities have the limit of numbers that grow; a NaN makes the
    multipliers of its window NaN.

    Shapes: grad [V, *x.shape[:-1]]; x (outer, batch, inner) with the batch outside of its last dimension; r likewise,
    with its own rows; rows [V], int64; the result [V, *x.shape]. On CUDA the last dimension has at most 4096 entries.
    """
    return _op(grad, x, r, rows, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::shapley_max")
def _fake(grad: Tensor, x: Tensor, *_: Any) -> Tensor:
    return grad.new_empty((grad.shape[0], *x.shape))


register_vmap("shapley_max", ("grad", "x", "r", "rows"))
