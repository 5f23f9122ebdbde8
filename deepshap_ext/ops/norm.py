"""The rule of normalizations by a line's own mean and scale."""

from typing import Any

import torch
from torch import Tensor

from .batching import register_vmap

_op = torch.ops.deepshap_ext.norm.default


def norm(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    scale: Tensor,
    rows: Tensor,
    eps: float,
    centre: bool,
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    """Multipliers of z = u / sigma * scale over lines u of the input, at the means of the two sides.

    u is centred with `centre`, sigma = sqrt(mean(u^2) + eps). From u = sigma z at the midpoints, with g = grad * scale, n the elements
    of a line and bars for means over the two sides:

        m = (g - u_bar / (n sigma_bar) * sum_i g_i z_bar_i) / sigma_bar,   then centred with `centre`

    Complete, and bounded since it divides by the mean scale.

    Shapes: grad and the result [V, *x.shape]; x (outer, batch, inner); r (outer, rows of r, inner); scale [groups, n]:
    the operands are lines of n elements, none across rows of the batch, and line l is scaled by row l % groups; scale is
    float32 for half types, else of grad's type; rows [V], int64.
    """
    return _op(grad, x, r, scale, rows, eps, centre, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::norm")
def _fake(grad: Tensor, *_: Any) -> Tensor:
    return grad.new_empty(grad.shape)


register_vmap("norm", ("grad", "x", "r", "scale", "rows"))
