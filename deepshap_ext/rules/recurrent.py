"""Recurrent layers, unrolled into steps: LSTM cells, which have a rule, and the products, sigmoids and tanhs of other cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .. import ops
from ..errors import UnsupportedOperationError
from .registry import Application, Context, decomposition, rule

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Sequence[Any]], State]


def lstm_unit(state: Tensor) -> Tensor:
    """The hidden state and the next cell, side by side, from the gates i, f, g, o before their activation and the cell.

    An operation of its own to the function mode: its rule is one kernel where its parts would be eight.
    """
    if has_torch_function_unary(state):
        return handle_torch_function(lstm_unit, (state,), state)
    return _lstm_unit(state)[0]


def _lstm_unit(state: Tensor) -> tuple[Tensor, list[Tensor]]:
    i, f, g, o, cell = state.chunk(5, -1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    following = f * cell + i * g
    squashed = torch.tanh(following)
    return torch.cat([o * squashed, following], -1), [state, torch.cat([i, f, g, o, following, squashed], -1)]


@rule("lstm_unit")
def _lstm_unit_rule(_: Context, state: Tensor) -> Application:
    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        (x, x_values), (r, r_values) = sides.x, sides.r
        return [ops.lstm(grad.unsqueeze(0), x, r, x_values, r_values, sides.rows(), *sides.geometry()).squeeze(0)]

    return Application([state], _lstm_unit, multipliers)


def _lstm_step(projected: Tensor, state: State, weights: Sequence[Any]) -> State:
    """One step; ``projected`` is the input's part of the gates, ``weights`` those of the hidden state: weight, bias or None, projection."""
    hidden, cell = state
    gates = projected + torch.nn.functional.linear(hidden, weights[0], weights[1])
    hidden, cell = lstm_unit(torch.cat([gates, cell], -1)).chunk(2, -1)
    return (hidden if len(weights) == 2 else hidden @ weights[2].mT), cell


def _gru_step(projected: Tensor, state: State, weights: Sequence[Any]) -> State:
    (hidden,) = state
    reset_x, update_x, new_x = projected.chunk(3, -1)
    reset_h, update_h, new_h = torch.nn.functional.linear(hidden, weights[0], weights[1]).chunk(3, -1)
    update = torch.sigmoid(update_x + update_h)
    new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
    return (new + update * (hidden - new),)


def _rnn_step(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(projected: Tensor, state: State, weights: Sequence[Any]) -> State:
        return (activation(projected + torch.nn.functional.linear(state[0], weights[0], weights[1])),)

    return step


_STEPS: dict[str, Step] = {
    "lstm": _lstm_step,
    "gru": _gru_step,
    "rnn_tanh": _rnn_step(torch.tanh),
    "rnn_relu": _rnn_step(torch.relu),
}


def _layer(
    step: Step, input: Tensor, state: State, weights: Sequence[Any], biases: bool, backwards: bool
) -> tuple[Tensor, State]:
    """One direction of one layer over ``[S, B, features]``."""
    w_ih, w_hh, *rest = weights
    b_ih, b_hh = rest[:2] if biases else (None, None)
    of_hidden = [w_hh, b_hh, *(rest[2:] if biases else rest)]
    projected = torch.nn.functional.linear(input, w_ih, b_ih).unbind(0)
    outputs = []
    for one in reversed(projected) if backwards else projected:
        state = step(one, state, of_hidden)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _register(name: str, step: Step) -> None:
    @decomposition(name)
    def unrolled(*args: Any) -> tuple[Tensor, ...]:
        if not isinstance(args[3], bool):
            raise UnsupportedOperationError(
                f"torch.{name} on a packed sequence cannot be explained: its rows are not those of the batch; pass a padded tensor"
            )
        input, hx, params, biases, layers, dropout, training, bidirectional, batch_first = args
        if training and dropout:
            raise UnsupportedOperationError(f"torch.{name} is random: its dropout is on outside of eval mode")
        states = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
        directions = 2 if bidirectional else 1
        each = len(params) // (layers * directions)
        sequence = input.transpose(0, 1) if batch_first else input
        finals: list[State] = []
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                number = layer * directions + direction
                output, final = _layer(
                    step,
                    sequence,
                    tuple(state[number] for state in states),
                    params[number * each : (number + 1) * each],
                    biases,
                    direction == 1,
                )
                outputs.append(output)
                finals.append(final)
            sequence = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        ends = tuple(torch.stack(parts) for parts in zip(*finals, strict=True))
        return (sequence.transpose(0, 1) if batch_first else sequence, *ends)

    @decomposition(f"{name}_cell")
    def cell(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
    ) -> Any:
        state = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
        found = step(torch.nn.functional.linear(input, w_ih, b_ih), state, [w_hh, b_hh])
        return found if len(state) == 2 else found[0]


for _name, _step in _STEPS.items():
    _register(_name, _step)
