"""Recurrent layers and cells, decomposed into single directions of layers, which have a rule; and the packing of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..errors import UnsupportedOperationError
from .recurrence import recurrent_layer
from .registry import decomposition


def _layers(
    name: str,
    input: Tensor,
    hx: Any,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """All layers over ``[S, B, features]``: the last one's outputs, and the states of each layer and direction after its last step."""
    if train and dropout:
        raise UnsupportedOperationError(f"torch.{name} is random: its dropout is on outside of eval mode")
    states = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    finals: list[tuple[Tensor, ...]] = []
    for layer in range(num_layers):
        outputs = []
        for number in range(layer * directions, (layer + 1) * directions):
            backwards = number % directions == 1
            w_ih, w_hh, *rest = params[number * each : (number + 1) * each]
            b_ih, b_hh = rest[:2] if has_biases else (None, None)
            projection = rest[-1] if len(rest) % 2 else None
            projected = linear(input, w_ih, b_ih)
            output, *cell = recurrent_layer(
                name,
                projected.flip(0) if backwards else projected,
                tuple(state[number] for state in states),
                (w_hh, b_hh, projection),
            )
            finals.append((output[-1], *cell))
            outputs.append(output.flip(0) if backwards else output)
        input = outputs[0] if directions == 1 else torch.cat(outputs, -1)
    return (input, *(torch.stack(parts) for parts in zip(*finals, strict=True)))


def _register(name: str) -> None:
    def padded(input: Tensor, *args: Any, batch_first: bool, **kwargs: Any) -> tuple[Tensor, ...]:
        output, *ends = _layers(name, input.transpose(0, 1) if batch_first else input, *args, **kwargs)
        return (output.transpose(0, 1) if batch_first else output, *ends)

    def packed(data: Tensor, batch_sizes: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        steps = len(batch_sizes)
        _check_equal_lengths(f"torch.{name}", [int(size) for size in batch_sizes])
        output, *ends = _layers(name, data.unflatten(0, (steps, -1)), *args, **kwargs)
        return (output.flatten(0, 1), *ends)

    @decomposition(name)
    def layers(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        if "data" in kwargs or "batch_sizes" in kwargs or (len(args) > 3 and not isinstance(args[3], bool)):
            return packed(*args, **kwargs)
        if len(args) == 9:
            *args, kwargs["batch_first"] = args  # type: ignore[assignment]
        return padded(*args, **kwargs)

    @decomposition(f"{name}_cell")
    def cell(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
    ) -> Any:
        states = tuple(hx) if isinstance(hx, (list, tuple)) else (hx,)
        output, *last = recurrent_layer(name, linear(input, w_ih, b_ih).unsqueeze(0), states, (w_hh, b_hh, None))
        return (output[0], *last) if last else output[0]


for _name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    _register(_name)


def _check_equal_lengths(called: str, numbers: Sequence[int]) -> None:
    """Refuse packed samples of different lengths; ``numbers``: the lengths, or how many samples each step has."""
    if len(set(numbers)) > 1:
        raise UnsupportedOperationError(
            f"{called} has samples of different lengths packed together, whose rows are not those of the batch: explain the samples "
            f"of each length by themselves (x[i:i + 1] where each has its own), with an explainer for that length; or let the model run on "
            f"the padded tensor and mask what lies behind each length, given as sample_kwargs"
        )


@decomposition("_pack_padded_sequence")
def _pack(input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    each = [int(length) for length in lengths]
    _check_equal_lengths("torch.nn.utils.rnn.pack_padded_sequence", each)
    sequence = (input.transpose(0, 1) if batch_first else input)[: each[0]]
    return sequence.flatten(0, 1), torch.full((each[0],), len(each))


@decomposition("_pad_packed_sequence")
def _pad(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Tensor, Tensor]:
    steps = len(batch_sizes)
    _check_equal_lengths("torch.nn.utils.rnn.pad_packed_sequence", [int(size) for size in batch_sizes])
    sequence = data.unflatten(0, (steps, -1))
    if total_length > steps:
        missing = sequence.new_full((total_length - steps, *sequence.shape[1:]), padding_value)
        sequence = torch.cat([sequence, missing])
    return sequence.transpose(0, 1) if batch_first else sequence, torch.full((sequence.shape[1],), steps)
