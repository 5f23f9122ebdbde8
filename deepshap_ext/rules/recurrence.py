"""One direction of a recurrent layer, over all its steps, as one operation with a rule.

Its rule is that of the products, sigmoids and tanhs that the cells are made of. What these pass on depends on the two sides alone and is
known for all steps at once; from step to step, backwards, multipliers are only multiplied by it and by the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import handle_torch_function, has_torch_function

from .. import ops
from ..errors import MixedSamplesError
from .registry import Application, Context, rule

#: The weights of the hidden state: weight, bias or None, projection or None.
Weights = tuple[Tensor, Tensor | None, Tensor | None]


def recurrent_layer(cell: str, projected: Tensor, state: Sequence[Tensor], weights: Weights) -> tuple[Tensor, ...]:
    """The hidden states ``[S, B, H]`` of all steps, and an LSTM's last cell.

    ``projected``, ``[S, B, gates]``: the input's part of the gates. ``state``: the hidden state, and an LSTM's cell, before the first step.
    """
    if has_torch_function((projected, *state)):
        # The function mode's own result.
        return handle_torch_function(recurrent_layer, (projected, *state), cell, projected, state, weights)
    return _CELLS[cell].forward(projected, state, weights)[0]


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
        return _CELLS[cell].forward(given[0], given[1:], weights)

    def multipliers(_: Tensor, sides: Any) -> list[Tensor]:
        if sides.batch_dim() == 0:
            raise MixedSamplesError(
                f"torch.{cell} takes the samples of a batch for the steps of one sequence: give it a tensor of three dimensions"
            )
        found = _CELLS[cell].multipliers(sides, weights)
        return [found[number] for number in active]

    return Application([every[number] for number in active], forward, multipliers, parameters=(cell,))


class _Lstm:
    """``next = sigmoid(f) * c + sigmoid(i) * tanh(g)``, ``hidden = sigmoid(o) * tanh(next)``; by :func:`deepshap_ext.ops.lstm`."""

    def forward(
        self, projected: Tensor, state: Sequence[Tensor], weights: Weights
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        weight, bias, projection = weights
        hidden, cell = state
        outputs, states, values = [], [], []
        for step in projected.unbind(0):
            gates = step + linear(hidden, weight, bias)
            states.append(torch.cat([gates, cell], -1))
            i, f, g, o = gates.chunk(4, -1)
            i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
            cell = f * cell + i * g
            squashed = torch.tanh(cell)
            values.append(torch.cat([i, f, g, o, cell, squashed], -1))
            hidden = o * squashed if projection is None else linear(o * squashed, projection)
            outputs.append(hidden)
        return (torch.stack(outputs), cell), [torch.stack(states), torch.stack(values)]

    def multipliers(self, sides: Any, weights: Weights) -> list[Tensor]:
        weight, _, projection = weights
        grads, of_cell = sides.grads
        sides_by_step = zip(*(kept.unbind(0) for kept in (*sides.x, *sides.r)), strict=True)
        outer, *geometry = sides.geometry()
        carried: Tensor | int = 0
        found = []
        for grad, (x, x_values, r, r_values) in reversed(list(zip(grads.unbind(0), sides_by_step, strict=True))):
            grad = grad + carried
            both = torch.cat([grad if projection is None else grad @ projection, of_cell], -1)
            # The steps are the outermost dimension of what was kept.
            one = x, r, x_values, r_values, sides.rows(), max(1, outer // len(grads)), *geometry
            of_gates, of_cell = (
                ops.lstm(both.unsqueeze(0), *one).squeeze(0).split([weight.shape[0], of_cell.shape[-1]], -1)
            )
            carried = of_gates @ weight
            found.append(of_gates)
        return [torch.stack(found[::-1]), carried, of_cell]


class _Gru:
    """``new = tanh(n_x + sigmoid(r) * n_h)``, ``hidden = new + sigmoid(u) * (hidden - new)``."""

    def forward(
        self, projected: Tensor, state: Sequence[Tensor], weights: Weights
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        weight, bias, _ = weights
        (hidden,) = state
        size = hidden.shape[-1]
        outputs, gates, news, values = [], [], [], []
        for step in projected.unbind(0):
            both_x, new_x = step.split([2 * size, size], -1)
            both_h, new_h = linear(hidden, weight, bias).split([2 * size, size], -1)
            gates.append(both_x + both_h)
            reset, update = torch.sigmoid(gates[-1]).chunk(2, -1)
            news.append(new_x + reset * new_h)
            new = torch.tanh(news[-1])
            values.append(torch.cat([reset, update, new_h, hidden - new], -1))
            hidden = new + update * (hidden - new)
            outputs.append(hidden)
        return (torch.stack(outputs),), [torch.stack(kept) for kept in (gates, news, values)]

    def multipliers(self, sides: Any, weights: Weights) -> list[Tensor]:
        (grads,) = sides.grads
        reset, update, new_h, distance = sides.midpoint(2).chunk(4, -1)
        new = _rescaled(1 - update, sides, "tanh", 1)
        gates = _rescaled(torch.cat([new * new_h, distance], -1), sides, "sigmoid", 0)
        # What a hidden state's multiplier is multiplied by for the gates of the state before, and for the input's part of the new state.
        slopes = torch.stack([*gates.chunk(2, -1), new * reset, new], -2)
        carried: Tensor | int = 0
        found = []
        for grad, slope, kept in reversed(list(zip(grads.unbind(0), slopes.unbind(0), update.unbind(0), strict=True))):
            grad = grad + carried
            found.append(grad.unsqueeze(-2) * slope)
            carried = grad * kept + found[-1][..., :3, :].flatten(-2) @ weights[0]
        every = torch.stack(found[::-1])
        return [torch.cat([every[..., :2, :], every[..., 3:, :]], -2).flatten(-2), carried]  # type: ignore[list-item]


class _Rnn:
    """``hidden = activation(x + hidden)``."""

    def __init__(self, activation: str) -> None:
        self._activation = activation

    def forward(
        self, projected: Tensor, state: Sequence[Tensor], weights: Weights
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        (hidden,) = state
        outputs, before = [], []
        for step in projected.unbind(0):
            before.append(step + linear(hidden, weights[0], weights[1]))
            hidden = getattr(torch, self._activation)(before[-1])
            outputs.append(hidden)
        return (torch.stack(outputs),), [torch.stack(before)]

    def multipliers(self, sides: Any, weights: Weights) -> list[Tensor]:
        (grads,) = sides.grads
        slopes = _rescaled(torch.ones_like(grads), sides, self._activation, 0)
        carried: Tensor | int = 0
        found = []
        for grad, slope in reversed(list(zip(grads.unbind(0), slopes.unbind(0), strict=True))):
            found.append((grad + carried) * slope)
            carried = found[-1] @ weights[0]
        return [torch.stack(found[::-1]), carried]  # type: ignore[list-item]


def _rescaled(grad: Tensor, sides: Any, function: str, position: int) -> Tensor:
    x, r, geometry = sides.x[position], sides.r[position], sides.geometry(position)
    return ops.rescale(grad.unsqueeze(0), x, r, sides.rows(), function, (), *geometry).squeeze(0)


_CELLS: dict[str, Any] = {"lstm": _Lstm(), "gru": _Gru(), "rnn_tanh": _Rnn("tanh"), "rnn_relu": _Rnn("relu")}
