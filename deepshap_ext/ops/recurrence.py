"""The rule of a recurrent layer, over all its steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .batching import in_front, register_vmap

_op = torch.ops.deepshap_ext.recurrence.default

#: By cell, how many numbers are kept of each unit at each step, and how many gates a unit has.
_PARTS = {"lstm": (6, 4), "gru": (5, 3), "rnn_tanh": (1, 1), "rnn_relu": (1, 1)}


def recurrence(
    grad: Tensor,
    state: Tensor,
    x: Tensor,
    r: Tensor,
    weight: Tensor,
    rows: Tensor,
    cell: str,
    outer: int,
    batch: int,
    pairing: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Multipliers of the gates' inputs and of the initial states of a recurrent layer, from those of its hidden states.

        lstm        next = sigmoid(f) * c + sigmoid(i) * tanh(g),   hidden = sigmoid(o) * tanh(next)
        gru         new = tanh(new_x + sigmoid(reset) * new_h),   hidden = new + sigmoid(update) * (before - new)
        rnn_tanh    hidden = tanh(gate)
        rnn_relu    hidden = relu(gate)

    Each gate is the input's part plus `weight @ before`, where `before` is the hidden state before the step; for a gru's third gate these
    two are new_x and new_h. Products pass multipliers on by the mean of the other factor over the two sides, functions by their divided
    differences: the result is that of the rules of the single operations.

    Shapes, for S steps of H units: x (S, outer, batch, inner) and r (S, outer, rows of r, inner), both with first dimension S. Their last
    dimension holds what was kept of a step: of an lstm 6H, i, f, g, o, c, next; of a gru 5H, reset, update and new before their functions,
    new_h, before - new; of an rnn H, gate. grad [V, *x.shape[:-1], H]; state [V, *x.shape[1:-1], H]: the multipliers of an lstm's last
    cell, zeros for other cells; weight [gates * H, H]; rows [V], int64.

    Returns three multipliers: of the input's part of the gates, [V, *x.shape[:-1], gates * H]; of the hidden state before the first step,
    as far as it acts by `weight`, of state's shape; and, of state's shape, of an lstm's cell before the first step, or of a gru's hidden
    state there as far as it acts otherwise than by `weight`.
    """
    return _op(grad, state, x, r, weight, rows, cell, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::recurrence")
def _fake(
    grad: Tensor, state: Tensor, x: Tensor, r: Tensor, weight: Tensor, rows: Tensor, cell: str, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    of_input = grad.new_empty((*grad.shape[:-1], _PARTS[cell][1] * grad.shape[-1]))
    return of_input, grad.new_empty(state.shape), grad.new_empty(state.shape)


def _batched(in_dims: Sequence[int | None], *arguments: Any) -> Any:
    """The vmapped dimension joins the cotangents of grad, state and rows."""
    places = (0, 1, 5)
    size = next(arguments[place].shape[in_dims[place]] for place in places if in_dims[place] is not None)
    joined = list(arguments)
    for place in places:
        joined[place] = in_front(arguments[place], in_dims[place], size).flatten(0, 1)
    return tuple(out.unflatten(0, (size, -1)) for out in _op(*joined))


register_vmap("recurrence", ("grad", "state", "x", "r", "weight", "rows"), _batched, leading=2)
