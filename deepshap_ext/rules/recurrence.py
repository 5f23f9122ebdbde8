"""One direction of a recurrent layer, over all its steps, as one operation with a rule.

The rule is made of those of the products, sigmoids and tanhs in the cells. What they read is kept in one tensor for all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn.functional import linear
from torch.overrides import handle_torch_function, has_torch_function

from .. import ops
from ..errors import MixedSamplesError
from .registry import Application, Context, rule

#: The weights that the hidden state is multiplied by: weight ``[gates * H, hidden]``, bias or None, projection or None.
Weights = tuple[Tensor, Tensor | None, Tensor | None]


def recurrent_layer(cell: str, projected: Tensor, state: Sequence[Tensor], weights: Weights) -> tuple[Tensor, ...]:
    """The hidden states ``[S, B, H]`` of all steps, and an LSTM's last cell.

    ``projected``, ``[S, B, gates]``: the input's part of the gates. ``state``: the hidden state, and an LSTM's cell, before the first step.
    """
    if has_torch_function((projected, *state)):
        # A function mode that is on, as the capture, sees the layer as one operation.
        return handle_torch_function(recurrent_layer, (projected, *state), cell, projected, state, weights)
    return _forward(cell, projected, state, weights)[0]


@rule("recurrent_layer")
def _recurrent_layer(
    context: Context, cell: str, projected: Tensor, state: Sequence[Tensor], weights: Weights
) -> Application:
    every = (projected, *state)
    active = [number for number, tensor in enumerate(every) if context.carries(tensor)]

    def forward(*operands: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        given = list(every)
        for number, operand in zip(active, operands, strict=True):
            given[number] = operand
        return _forward(cell, given[0], given[1:], weights)

    def multipliers(_: Tensor, sides: Any) -> list[Tensor]:
        if sides.batch_dim() == 0:
            raise MixedSamplesError(
                f"torch.{cell} takes the samples of a batch for the steps of one sequence: give it a tensor of three dimensions"
            )
        found = _multipliers(cell, sides, weights)
        return [found[number] for number in active]

    return Application([every[number] for number in active], forward, multipliers, parameters=(cell,))


def _multipliers(cell: str, sides: Any, weights: Weights) -> tuple[Tensor, ...]:
    """The multipliers of ``projected`` and of the states before the first step, by :func:`deepshap_ext.ops.recurrence`."""
    weight, _, projection = _of_type(weights, sides.x[0].dtype)
    grads, *of_state = sides.grads
    steps, recurring = len(grads), weight
    if projection is not None:
        # The projection is linear: multipliers behind it become those before it by a product, for all steps at once.
        grads, recurring = grads @ projection, weight @ projection
    state = of_state[0] if of_state else torch.zeros_like(grads[0])
    outer, *geometry = sides.geometry()
    # The steps are the outermost dimension of what was kept.
    geometry = (max(1, outer // steps), *geometry)
    found = ops.recurrence(
        grads.unsqueeze(0), state.unsqueeze(0), sides.x[0], sides.r[0], recurring, sides.rows(), cell, *geometry
    )
    of_input, of_hidden, handed_on = (tensor.squeeze(0) for tensor in found)
    if projection is not None:
        of_hidden = of_input[0] @ weight
    return (of_input, of_hidden, handed_on) if cell == "lstm" else (of_input, of_hidden + handed_on)


def _forward(
    cell: str, projected: Tensor, state: Sequence[Tensor], weights: Weights
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The outputs of all steps and the tensor that the rule reads, in the dtype of ``projected``, which autocast may have chosen."""
    with torch.autocast(projected.device.type, enabled=False):
        given = [tensor.to(projected.dtype) for tensor in state]
        weights = _of_type(weights, projected.dtype)
        if get_proxy_mode() is None:
            return _FORWARD[cell](projected, given, weights)
        # A graph has no writes in place: traced step by step, it would copy the tensor that is kept of all steps at every step.
        *found, kept = _traced(cell, projected, given, *weights)
        return tuple(found), [kept]


def _of_type(weights: Weights, dtype: torch.dtype) -> Weights:
    weight, bias, projection = weights
    return (
        weight.to(dtype),
        None if bias is None else bias.to(dtype),
        None if projection is None else projection.to(dtype),
    )


Forward = Callable[[Tensor, Sequence[Tensor], Weights], tuple[tuple[Tensor, ...], list[Tensor]]]


def _lstm(projected: Tensor, state: Sequence[Tensor], weights: Weights) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """``next = sigmoid(f) * c + sigmoid(i) * tanh(g)``, ``hidden = sigmoid(o) * tanh(next)``."""
    weight, bias, projection = weights
    hidden, first = state
    size = first.shape[-1]
    kept = projected.new_empty(*projected.shape[:-1], 6 * size)
    all_gates, cells, following = kept.split([4 * size, size, size], -1)
    outputs = projected.new_empty(*projected.shape[:-1], hidden.shape[-1])
    if bias is not None:
        projected = projected + bias
    cell = first
    for step, gates, after, output in zip(projected, all_gates, following, outputs, strict=True):
        torch.addmm(step, hidden, weight.t(), out=gates)
        i, f, _, o = torch.sigmoid(gates).chunk(4, -1)
        g = torch.tanh(gates[:, 2 * size : 3 * size])
        cell = torch.addcmul(f * cell, i, g, out=after)
        hidden = torch.tanh(cell).mul_(o)
        if projection is not None:
            hidden = linear(hidden, projection)
        output.copy_(hidden)
    cells[0] = first
    cells[1:] = following[:-1]
    return (outputs, cell.clone()), [kept]


def _gru(projected: Tensor, state: Sequence[Tensor], weights: Weights) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """``new = tanh(new_x + sigmoid(reset) * new_h)``, ``hidden = new + sigmoid(update) * (hidden - new)``."""
    weight, bias, _ = weights
    (hidden,) = state
    size = hidden.shape[-1]
    kept = projected.new_empty(*projected.shape[:-1], 5 * size)
    parts = kept.split([2 * size, size, size, size], -1)
    outputs = projected.new_empty(*projected.shape[:-1], size)
    for step, gates, before, new_h, apart, output in zip(projected, *parts, outputs, strict=True):
        both_h, third = linear(hidden, weight, bias).split([2 * size, size], -1)
        reset, update = torch.sigmoid(torch.add(step[:, : 2 * size], both_h, out=gates)).chunk(2, -1)
        new_h.copy_(third)
        new = torch.tanh(torch.addcmul(step[:, 2 * size :], reset, third, out=before))
        hidden = torch.addcmul(new, update, torch.sub(hidden, new, out=apart), out=output)
    return (outputs,), [kept]


def _rnn(
    activation: Callable[..., Tensor], projected: Tensor, state: Sequence[Tensor], weights: Weights
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """``hidden = activation(x + hidden)``."""
    weight, bias, _ = weights
    (hidden,) = state
    if bias is not None:
        projected = projected + bias
    kept, outputs = torch.empty_like(projected), torch.empty_like(projected)
    for step, before, output in zip(projected, kept, outputs, strict=True):
        torch.addmm(step, hidden, weight.t(), out=before)
        hidden = output.copy_(activation(before))
    return (outputs,), [kept]


@torch.library.custom_op("deepshap_ext::recurrent_layer", mutates_args=())
def _traced(
    cell: str,
    projected: Tensor,
    state: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
) -> list[Tensor]:
    """The outputs of all steps and the tensor that the rule reads, as a single operation in a traced graph."""
    found, kept = _FORWARD[cell](projected, state, (weight, bias, projection))
    return [*found, *kept]


@_traced.register_fake
def _(
    cell: str,
    projected: Tensor,
    state: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
) -> list[Tensor]:
    steps, batch, gates = projected.shape
    outputs = projected.new_empty(steps, batch, state[0].shape[-1])
    if cell == "lstm":
        return [outputs, torch.empty_like(state[1]), projected.new_empty(steps, batch, gates // 4 * 6)]
    return [outputs, projected.new_empty(steps, batch, gates // 3 * 5 if cell == "gru" else gates)]


_FORWARD: dict[str, Forward] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": partial(_rnn, torch.tanh),
    "rnn_relu": partial(_rnn, torch.relu),
}
