"""The rule of an elementwise product."""

import torch
from torch import Tensor

from .batching import empty_like_leading, register_vmap

_op = torch.ops.deepshap_ext.product.default


def product(
    grad: Tensor,
    a_x: Tensor,
    a_r: Tensor,
    b_x: Tensor,
    b_r: Tensor,
    rows: Tensor,
    outer: int,
    batch: int,
    pairing: str,
) -> tuple[Tensor, Tensor]:
    """Multiply by the other factor's mean over the two sides: the Shapley value of z = a * b, exactly.

        m_a[v] = grad[v] * (b_x + b_r) / 2,   m_b[v] = grad[v] * (a_x + a_r) / 2

    Shapes: grad and both results [V, *a_x.shape]; a_x, b_x (outer, batch, inner); a_r, b_r (outer, rows of r, inner);
    rows [V], int64: the baseline of each cotangent. Factors that were broadcast come expanded to the product's shape; the
    caller sums the results over what was broadcast.
    """
    return _op(grad, a_x, a_r, b_x, b_r, rows, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::product")
def _fake(
    grad: Tensor, a_x: Tensor, a_r: Tensor, b_x: Tensor, b_r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str
) -> tuple[Tensor, Tensor]:
    out = empty_like_leading(grad, a_x, a_r, outer, batch)
    return out, torch.empty_like(out)


register_vmap("product", ("grad", "a_x", "a_r", "b_x", "b_r", "rows"))
