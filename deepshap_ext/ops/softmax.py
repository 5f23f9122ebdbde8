"""The log-mean rule of softmax and log-softmax."""

from typing import Any

import torch
from torch import Tensor

from .batching import register_vmap

_op = torch.ops.deepshap_ext.softmax.default


def softmax(
    grad: Tensor, x: Tensor, r: Tensor, rows: Tensor, dim: int, log: bool, outer: int, batch: int, pairing: str
) -> Tensor:
    """Softmax's gradient with the probabilities replaced by the logarithmic mean of the two sides'.

    x and r are LOG-probabilities, log_softmax along `dim` of each side. With L_k = (e^x_k - e^r_k) / (x_k - r_k):

        softmax        m_k = L_k * (g_k - sum_i g_i L_i / sum_i L_i)
        log-softmax    m_k = g_k - L_k / sum_i L_i * sum_i g_i

    Both are complete, and blind to a shift of either side. Where no entry is finite on both sides, sum L = 0, they are 0.

    Shapes: grad and the result [V, *x.shape]; x (outer, batch, inner); r (outer, rows of r, inner); rows [V], int64.
    """
    return _op(grad, x, r, rows, dim, log, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::softmax")
def _fake(grad: Tensor, *_: Any) -> Tensor:
    return grad.new_empty(grad.shape)


register_vmap("softmax", ("grad", "x", "r", "rows"))
