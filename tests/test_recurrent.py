"""Recurrent layers and cells with all their options."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from checks import explain
from models import Function, spread
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from deepshap_ext import ControlFlowError, DeepExplainer, MixedSamplesError, UnsupportedOperationError, register_rule
from deepshap_ext.rules.recurrence import recurrent_layer
from deepshap_ext.rules.registry import RULES

FEATURES, HIDDEN, LENGTH = 3, 2, 3
LAYERS: dict[str, Any] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN": nn.RNN,
    "RNN relu": lambda *args, **options: nn.RNN(*args, nonlinearity="relu", **options),
}


def numbers(samples: int, *shape: int) -> Tensor:
    return torch.randn(samples, *(shape or (LENGTH, FEATURES)), dtype=torch.float64)


def states(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def explained(function: Any, **modules: nn.Module) -> None:
    model = spread(Function(lambda *args: function(*args).flatten(1), **modules)).double()
    explain(model, numbers(3), numbers(2), tolerance=1e-11)


@pytest.mark.parametrize("initial", [None, "constant", "from the input"])
@pytest.mark.parametrize(
    ("name", "layers", "bidirectional", "batch_first", "bias", "projection"),
    [
        (name, *options, projection)
        for name, *options, projection in product(LAYERS, [1, 2], [False, True], [False, True], [False, True], [0, 1])
        # Batch first with biases, or neither.
        if options[2] == options[3] and (not projection or name == "LSTM")
    ],
)
def test_layers_add_up(
    name: str, layers: int, bidirectional: bool, batch_first: bool, bias: bool, projection: int, initial: str | None
) -> None:
    def turn(x: Tensor) -> Tensor:
        return x if batch_first else x.transpose(0, 1)

    def state(x: Tensor, width: int) -> Tensor:
        ones = torch.full((layers * (1 + bidirectional), len(x), width), 0.3, dtype=x.dtype)
        return ones if initial == "constant" else ones * x[:, 0].sum(1).view(1, -1, 1)

    def function(self: Any, x: Tensor) -> Tensor:
        start = None
        if initial:
            start = state(x, projection or HIDDEN)
            start = (start, state(x, HIDDEN)) if name == "LSTM" else start
        outputs, ends = self.layer(turn(x), start)
        return torch.cat([turn(outputs).flatten(1), *[end.transpose(0, 1).flatten(1) for end in states(ends)]], 1)

    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
    options |= {"proj_size": projection} if projection else {}
    # Off in eval mode.
    options |= {"dropout": 0.4} if layers > 1 else {}
    explained(function, layer=LAYERS[name](FEATURES, HIDDEN, **options))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell", "RNNCell", "RNNCell relu"])
def test_cells_add_up(name: str, bias: bool) -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return states(state)[-1]

    options = {"nonlinearity": "relu"} if "relu" in name else {}
    explained(function, cell=getattr(nn, name.split()[0])(FEATURES, HIDDEN, bias=bias, **options))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_under_autocast_add_up(name: str) -> None:
    """Under autocast the products are of half precision, and the states before the first step are not."""

    def function(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.layer(x)[0][:, -1].float()

    model = Function(function, layer=LAYERS[name](FEATURES, HIDDEN, batch_first=True))
    x, background = torch.randn(3, LENGTH, FEATURES), torch.randn(2, LENGTH, FEATURES)
    with torch.no_grad():
        expected = model(x) - model(background).mean(0)
    found = DeepExplainer(model, background, additivity_tolerance=3e-2).attribute(x)
    torch.testing.assert_close(found.values.sum((1, 2)), expected, rtol=0, atol=2e-2)


@pytest.mark.parametrize("at", ["input", "output"])
def test_a_recurrent_layer_is_a_layer(at: str) -> None:
    lstm = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
    model = spread(Function(lambda self, x: self.lstm(x.tanh())[0][:, -1].sigmoid(), lstm=lstm)).double()
    if at == "input":
        assert explain(model, numbers(3), numbers(2), layer=lstm).values.shape == (3, LENGTH, FEATURES, HIDDEN)
        return
    found = explain(model, numbers(3), numbers(2), layer=lstm, at=at)
    # The outputs and the last hidden and cell states, of which the model uses the first.
    assert [value.abs().sum() > 0 for value in found.values] == [True, False, False]


@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences_are_refused(name: str) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LAYERS[name](FEATURES, HIDDEN, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            lengths = torch.arange(len(x)) % 2 + 1
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]

    message = r"pack_padded_sequence has samples of different lengths packed together.*\(in Packed\)"
    with pytest.raises(UnsupportedOperationError, match=message):
        DeepExplainer(Packed().double(), numbers(2))


@pytest.mark.parametrize("sorted_before", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences_of_one_length_are_padded_ones(name: str, batch_first: bool, sorted_before: bool) -> None:
    """Shorter than the padded tensor, and padded to its length again."""

    class Packed(nn.Module):
        def __init__(self, packed: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = LAYERS[name](FEATURES, HIDDEN, 2, batch_first=batch_first, bidirectional=True)
            self.packed = packed

        def forward(self, x: Tensor) -> Tensor:
            first = {"batch_first": batch_first}
            given = x if batch_first else x.transpose(0, 1)
            if self.packed:
                lengths = torch.full((len(x),), LENGTH - 1)
                given = pack_padded_sequence(given, lengths, enforce_sorted=sorted_before, **first)
                packed, ends = self.layer(given)
                outputs = pad_packed_sequence(packed, total_length=LENGTH, padding_value=0.5, **first)[0]
                outputs = outputs if batch_first else outputs.transpose(0, 1)
            else:
                outputs, ends = self.layer(given[:, :-1] if batch_first else given[:-1])
                outputs = outputs if batch_first else outputs.transpose(0, 1)
                outputs = nn.functional.pad(outputs, (0, 0, 0, 1), value=0.5)
            return torch.cat([outputs.flatten(1), *(end.transpose(0, 1).flatten(1) for end in states(ends))], 1)

    x, background = numbers(3), numbers(4)
    packed, padded = (explain(spread(Packed(one)).double(), x, background, tolerance=1e-11) for one in (True, False))
    torch.testing.assert_close(packed.output, padded.output, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(packed.values, padded.values, rtol=1e-12, atol=1e-14)


SORTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sort": lambda lengths: lengths.sort(0, True)[1],
    "argsort": lambda lengths: torch.argsort(lengths, descending=True),
    "in aten": lambda lengths: torch.ops.aten.sort.default(lengths, 0, True)[1],
}


@pytest.mark.parametrize("order", SORTS.values(), ids=SORTS.keys())
def test_samples_of_one_length_are_not_shuffled_by_a_sort_of_their_lengths(order: Callable[[Tensor], Tensor]) -> None:
    """Torch's sort shuffles more than 16 equal elements, so that a batch of baselines would have another order than one of few samples."""

    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(FEATURES, HIDDEN, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            lengths = torch.full((len(x),), LENGTH)
            places = order(lengths)
            packed = pack_padded_sequence(x[places], lengths[places], batch_first=True)
            return self.layer(packed)[1][0][places.argsort()]

    explain(spread(Sorted()).double(), numbers(3), numbers(40))


def test_many_packed_sequences_of_one_length() -> None:
    layer = nn.GRU(FEATURES, HIDDEN, batch_first=True)

    def packed(_: Any, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), LENGTH)
        return layer(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1][0]

    explain(spread(Function(packed, layer=layer)).double(), numbers(3), numbers(40))


def test_lengths_of_the_samples() -> None:
    """Lengths are given with the samples; every call has samples of one length."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.GRU(FEATURES, HIDDEN, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return self.layer(packed)[1][0]

    x, background = numbers(3), numbers(2)
    model = spread(Packed()).double()
    explainer = DeepExplainer(model, background, sample_kwargs={"lengths": torch.full((2,), 1)})
    with pytest.raises(
        UnsupportedOperationError, match=r"explain the samples of each length by themselves \(x\[i:i \+ 1\]"
    ):
        explainer.attribute(x, sample_kwargs={"lengths": torch.tensor([3, 1, 2])})
    found = explainer.attribute(x[1:2], sample_kwargs={"lengths": torch.tensor([1])})
    assert found.values[0, 0].abs().sum() > 0 and not found.values[0, 1:].any()
    expected = model(x[1:2], torch.tensor([1])) - model(background, torch.tensor([1, 1])).mean(0)
    torch.testing.assert_close(found.values.sum((1, 2)), expected, rtol=1e-12, atol=1e-14)


def test_the_tape_of_a_layer_does_not_grow_with_its_steps() -> None:
    layer = nn.GRU(FEATURES, HIDDEN, batch_first=True, bidirectional=True)
    model = Function(lambda self, x: self.layer(x)[0].mean(1), layer=layer).double()
    seen = []
    rule = RULES["recurrent_layer"]

    def counting(context: Any, *args: Any) -> Any:
        seen.append(args[0])
        return rule(context, *args)

    with register_rule(recurrent_layer, counting):
        explainer = DeepExplainer(model, numbers(2, 50, FEATURES))
        seen.clear()
        explainer.attribute(numbers(2, 50, FEATURES))
    # Both directions, on the inputs and on the baselines.
    assert seen == ["gru"] * 4


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_in_training_mode_is_refused(name: str) -> None:
    layer = LAYERS[name](FEATURES, HIDDEN, 2, dropout=0.5, batch_first=True)

    def function(self: Any, x: Tensor) -> Tensor:
        self.layer.training = True
        return self.layer(x)[0]

    with pytest.raises(UnsupportedOperationError, match="is random: its dropout is on outside of eval mode"):
        DeepExplainer(Function(function, layer=layer).double(), numbers(2))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_samples_that_are_taken_for_a_sequence_are_refused(name: str) -> None:
    """Two dimensions: a sequence without a batch."""
    model = Function(lambda self, x: self.layer(x)[0], layer=LAYERS[name](FEATURES, HIDDEN))
    with pytest.raises((MixedSamplesError, ControlFlowError), match=r"^torch\.(lstm|gru|rnn_tanh) in layer: "):
        DeepExplainer(model.double(), numbers(3, FEATURES))
