"""The rule of an LSTM's cell."""

from typing import Any

import torch
from torch import Tensor

from .batching import register_vmap

_op = torch.ops.deepshap_ext.lstm.default


def lstm(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    x_values: Tensor,
    r_values: Tensor,
    rows: Tensor,
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    """Multipliers of a cell's inputs, i, f, g, o (pre-activations) and c, from those of its outputs:

        next = sigmoid(f) * c + sigmoid(i) * tanh(g),   hidden = sigmoid(o) * tanh(next)

    Products pass multipliers on by the mean of the other factor over the two sides, sigmoids and tanhs by their divided
    differences: what the rules of the single operations give, in one pass.

    Shapes, for H units: x (outer, batch, inner) and r (outer, rows of r, inner), with last dimension 5H: i, f, g, o, c side by side;
    their values 6H: sigmoid(i), sigmoid(f), tanh(g), sigmoid(o), next, tanh(next); grad [V, *x.shape[:-1], 2H]: of hidden and of
    next; rows [V], int64; the result [V, *x.shape].
    """
    return _op(grad, x, r, x_values, r_values, rows, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::lstm")
def _fake(grad: Tensor, x: Tensor, *_: Any) -> Tensor:
    return grad.new_empty((grad.shape[0], *x.shape))


register_vmap("lstm", ("grad", "x", "r", "x_values", "r_values", "rows"))
