"""Recurrent layers and their cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from reference import rules as slow
from rules.linear_samples import const
from torch import Tensor

from deepshap_ext.rules.recurrence import recurrent_layer

from .sample import Sample, linear


def samples() -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    steps = {
        "lstm": slow.lstm_step,
        "gru": slow.gru_step,
        "rnn_tanh": slow.rnn_tanh_step,
        "rnn_relu": slow.rnn_relu_step,
    }
    for name, step in steps.items():
        gates = {"lstm": 4, "gru": 3}.get(name, 1)
        states = 2 if name == "lstm" else 1
        w_ih, w_hh = const(2 * gates, 2), const(2 * gates, 2).flip(0)
        both = (w_ih.numpy(), w_hh.numpy())

        def run(x: Tensor, name: str = name, states: int = states, weights: Any = (w_ih, w_hh)) -> Tensor:
            zero = x.new_zeros(1, len(x), 2)
            hx = (zero, zero) if states == 2 else zero
            return getattr(torch, name)(x, hx, weights, False, 1, 0.0, False, False, True)[0]

        def slowly(a: np.ndarray, step: Any = step, states: int = states, both: Any = both) -> np.ndarray:
            state = (np.zeros(2),) * states
            hidden = []
            for one_step in a:
                state = step(one_step, state, *both)
                hidden.append(state[0])
            return np.stack(hidden)

        def cell(x: Tensor, name: str = name, states: int = states, weights: Any = (w_ih, w_hh)) -> Any:
            hx = (x[:, 1], x[:, 2]) if states == 2 else x[:, 1]
            return getattr(torch, f"{name}_cell")(x[:, 0], hx, *weights)

        def once(a: np.ndarray, step: Any = step, both: Any = both) -> np.ndarray:
            return np.stack(step(a[0], a[1:], *both))

        found[name] = Sample((4, 2), run, slowly, 0.15 if name.startswith("rnn") else 0.1)
        found[f"{name}_cell"] = Sample((1 + states, 2), cell, once, 0.2 if name.startswith("rnn") else 0.1)

    def unit(a: np.ndarray) -> np.ndarray:
        # The gates of both units before their activation, and the cell.
        return np.concatenate(slow.lstm_step(a[:4].ravel(), (np.zeros(2), a[4]), np.eye(8), np.zeros((8, 2))))

    def one_step(x: Tensor) -> Tensor:
        weights = torch.zeros(8, 2, dtype=x.dtype), None, None
        hidden, last = recurrent_layer("lstm", x[:, :4].flatten(1)[None], (torch.zeros_like(x[:, 4]), x[:, 4]), weights)
        return torch.cat([hidden[0], last], 1)

    def pack(x: Tensor) -> Tensor:
        data = torch._C._VariableFunctions._pack_padded_sequence(x, torch.full((len(x),), 2), True)[0]
        return data.unflatten(0, (2, -1)).transpose(0, 1)

    def pad(x: Tensor) -> Tensor:
        steps = torch.full((3,), len(x))
        return torch._C._VariableFunctions._pad_packed_sequence(x.transpose(0, 1).flatten(0, 1), steps, True, 0.5, 4)[0]

    found["recurrent_layer"] = Sample((5, 2), one_step, unit, 0.1)
    found["_pack_padded_sequence"] = linear((3, 2), pack)
    found["_pad_packed_sequence"] = linear((3, 2), pad)
    return found
