"""Layers: their outputs, and those that run more than once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepshap_ext import Attribution, DeepExplainer, ExplanationError


class Tokens(nn.Module):
    """An embedding, one block used three times, a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block, self.head = (
            nn.Embedding(7, 4),
            nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
            nn.Linear(4, 2),
        )
        self.unused = nn.Linear(4, 4)
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed(tokens)
        for _ in range(3):
            hidden = hidden + self.block(hidden)
        return self.head(hidden.mean(1))


class Behind(nn.Module):
    """What comes after the embedding."""

    def __init__(self, model: Tokens) -> None:
        super().__init__()
        self.model = model

    def forward(self, hidden: Tensor) -> Tensor:
        for _ in range(3):
            hidden = hidden + self.model.block(hidden)
        return self.model.head(hidden.mean(1))


def tokens(count: int, seed: int) -> Tensor:
    return torch.randint(7, (count, 5), generator=torch.Generator().manual_seed(seed))


X, BACKGROUND = tokens(3, 1), tokens(4, 2)


def gap(found: Attribution) -> float:
    return float(found.convergence_delta.abs().max() / (found.output - found.expected_value).abs().max())


def test_an_embedding_is_explained_by_its_output() -> None:
    model = Tokens()
    found = DeepExplainer((model, model.embed), BACKGROUND, at="output").attribute(X)
    assert found.values.shape == (3, 5, 4, 2)
    assert gap(found) < 1e-12

    with torch.no_grad():
        embedded = [model.embed(ids) for ids in (X, BACKGROUND)]
    expected = DeepExplainer(Behind(model), embedded[1]).attribute(embedded[0])
    torch.testing.assert_close(found.values, expected.values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("call", [0, 1, 2])
def test_the_input_of_one_call_of_a_layer(call: int) -> None:
    """The hidden state before each block, from which the rest of the network follows: a cut."""
    model = Tokens()
    found = DeepExplainer((model, model.block), BACKGROUND, call=call).attribute(X)
    assert gap(found) < 1e-12


def test_an_output_that_a_skip_runs_past_is_not_a_cut() -> None:
    model = Behind(Tokens())
    x, background = (torch.randn(count, 5, 4, dtype=torch.float64) for count in (3, 4))
    with pytest.warns(UserWarning, match="past the explained layer"):
        found = DeepExplainer((model, model.model.block), background, at="output", call=1).attribute(x)
    assert found.values.shape == (3, 5, 4, 2)
    assert gap(found) > 1e-3


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("block", {}, r"layer 'block' runs 3 times in one forward pass: say which with call="),
        ("block", {"call": 3}, r"layer 'block' runs 3 time\(s\) in one forward pass: there is no call 3"),
        ("unused", {"call": 0}, r"layer 'unused' did not run"),
        ("embed", {}, r"layer 'embed' has no floating-point input tensor"),
    ],
)
def test_a_call_that_is_not_there_is_an_error(layer: str, options: dict[str, Any], message: str) -> None:
    model = Tokens()
    with pytest.raises(ExplanationError, match=message):
        DeepExplainer((model, getattr(model, layer)), BACKGROUND, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"at": "weights"}, ValueError, "at must be one of 'input', 'output', got 'weights'"),
        ({"call": 1.5}, ValueError, "call must be None or an integer from 0, got 1.5"),
        ({"call": -1}, ValueError, "call must be None or an integer from 0, got -1"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = Tokens()
    with pytest.raises(error, match=message):
        DeepExplainer((model, model.head), BACKGROUND, **options)
    with pytest.raises(ValueError, match="there is none: got at='output', call=None"):
        DeepExplainer(nn.Linear(3, 2), torch.randn(4, 3), at="output")


def test_layers_in_a_row_are_each_explained_in_full() -> None:
    model = Tokens()
    several = DeepExplainer((model, [model.embed, model.head]), BACKGROUND, at=["output", "input"]).attribute(X, 1)
    for layer, at, values, delta in zip(
        (model.embed, model.head), ("output", "input"), several.values, several.convergence_delta, strict=True
    ):
        alone = DeepExplainer((model, layer), BACKGROUND, at=at).attribute(X, 1)
        torch.testing.assert_close(values, alone.values, rtol=1e-12, atol=1e-14)
        assert float(delta.abs().max()) < 1e-12
    as_numpy = DeepExplainer((model, [model.embed, model.head]), BACKGROUND, at=["output", "input"]).shap_values(X)
    assert [values.shape for values in as_numpy] == [(3, 5, 4, 2), (3, 4, 2)]


def test_calls_of_one_layer_at_once() -> None:
    model = Tokens()
    found = DeepExplainer((model, [model.block] * 3), BACKGROUND, call=[0, 1, 2]).attribute(X, standard_error=True)
    assert len(found.values) == len(found.standard_error) == 3
    assert all(float(delta.abs().max()) < 1e-12 for delta in found.convergence_delta)


class Pair(nn.Module):
    """Two embeddings of two inputs, each with a skip past it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.word, self.kind, self.mix = nn.Embedding(7, 4), nn.Embedding(3, 4), nn.Linear(4, 4)
        self.double()

    def forward(self, tokens: Tensor, kinds: Tensor) -> Tensor:
        hidden = self.word(tokens) * self.kind(kinds)
        return self.mix(torch.tanh(hidden)).tanh().sum(1)


PAIR = [X, X % 3]
PAIR_BACKGROUND = [BACKGROUND, BACKGROUND % 3]


def test_layers_that_are_a_cut_only_together_add_up_together() -> None:
    model = Pair()
    found = DeepExplainer((model, [model.word, model.kind]), PAIR_BACKGROUND, at="output").attribute(PAIR, 0)
    (word,), (kind,) = found.values
    torch.testing.assert_close(
        word.sum((1, 2)) + kind.sum((1, 2)), found.output - found.expected_value, rtol=1e-12, atol=1e-14
    )
    assert torch.equal(*found.convergence_delta)


def test_one_layer_of_those_that_add_up_only_together_is_not_a_cut() -> None:
    model = Pair()
    with pytest.warns(UserWarning, match="past the explained layer"):
        DeepExplainer((model, model.word), PAIR_BACKGROUND, at="output").attribute(PAIR, 0)


def test_layers_of_which_one_is_no_cut_say_which() -> None:
    model = Behind(Tokens())
    x, background = (torch.randn(count, 5, 4, dtype=torch.float64) for count in (3, 4))
    layers = [model.model.head, model.model.block]
    with pytest.warns(UserWarning, match=r"past layer\(s\) 1 of the list"):
        found = DeepExplainer((model, layers), background, at=["input", "output"], call=[None, 1]).attribute(x)
    head, block = (float(delta.abs().max()) for delta in found.convergence_delta)
    assert head < 1e-12 < 1e-3 < block


@pytest.mark.parametrize("own", ["", None], ids=["by name", "by itself"])
def test_the_models_own_inputs_beside_a_layer(own: str | None) -> None:
    """Token ids and what the embedding makes of them: the same as of each alone."""
    model = Tokens()
    layers = [model.head, model if own is None else own, model.embed]
    at = ["input", "input", "output"]
    found = DeepExplainer((model, layers), BACKGROUND, at=at).attribute(X)
    assert [tuple(values.shape) for values in found.values] == [(3, 4, 2), (3, 5, 2), (3, 5, 4, 2)]
    alone = DeepExplainer(model, BACKGROUND).attribute(X)
    assert_close = torch.testing.assert_close
    assert_close(found.values[1], alone.values, rtol=1e-12, atol=1e-14)
    assert_close(found.values[1], found.values[2].sum(2), rtol=1e-12, atol=1e-14)
    assert max(float(delta.abs().max()) for delta in found.convergence_delta) < 1e-12
    assert torch.equal(DeepExplainer((model, model), BACKGROUND).attribute(X).values, alone.values)


def test_several_own_inputs_beside_a_layer_that_they_go_past() -> None:
    model = Pair()
    explainer = DeepExplainer((model, [model, model.word]), PAIR_BACKGROUND, at=["input", "output"])
    with pytest.warns(UserWarning, match=r"past layer\(s\) 1 of the list"):
        found = explainer.attribute(PAIR)
    (tokens, kinds), (word,) = found.values
    expected = DeepExplainer(model, PAIR_BACKGROUND).attribute(PAIR).values
    torch.testing.assert_close((tokens, kinds), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(word.sum(2), tokens, rtol=1e-12, atol=1e-14)


def test_own_integers_beside_a_layer_have_no_multipliers() -> None:
    model = Tokens()
    explainer = DeepExplainer((model, [model.embed, model]), BACKGROUND, at=["output", "input"])
    with pytest.raises(TypeError, match=r"multipliers must be False for inputs of torch\.int64"):
        explainer.attribute(X, multipliers=True)


def test_own_numbers_beside_a_layer() -> None:
    model = Behind(Tokens())
    x, background = (torch.randn(count, 5, 4, dtype=torch.float64) for count in (3, 4))
    own, head = DeepExplainer((model, [model, model.model.head]), background).attribute(x).values
    torch.testing.assert_close(own, DeepExplainer(model, background).attribute(x).values, rtol=1e-12, atol=1e-14)
    assert head.shape == (3, 4, 2)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([], {}, "got an empty list"),
        (["block", "head"], {"at": ["input"]}, "at must be one value, or a list of one a layer for 2 layers"),
        (["block", "head"], {"call": [0, -1]}, "call must be None or an integer from 0, got -1"),
        (["head", None], {}, "layer must be a torch.nn.Module inside the model or its name, got None"),
    ],
)
def test_bad_lists_of_layers_are_named(layers: list[Any], options: dict[str, Any], message: str) -> None:
    model = Tokens()
    modules = [name and getattr(model, name) for name in layers]
    with pytest.raises((TypeError, ValueError), match=message):
        DeepExplainer((model, modules), BACKGROUND, **options)


def test_one_layer_takes_no_list() -> None:
    model = Tokens()
    with pytest.raises(ValueError, match="at must be one value"):
        DeepExplainer((model, model.head), BACKGROUND, at=["input"])


class Nested(nn.Module):
    """A layer of two tensors, one made from the other, and one that is given the same tensor three times."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.gate, self.layer = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Bilinear(4, 4, 4)
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)
        self.double()

    def forward(self, given: Tensor) -> Tensor:
        hidden = self.embed(given) if given.dim() == 2 else given
        hidden = self.layer(hidden, self.gate(hidden).tanh()) + hidden
        return self.head(self.attention(hidden, hidden, hidden)[0].sum(1))


def test_of_tensors_made_from_one_another_each_keeps_what_it_gives_itself() -> None:
    model = Nested()
    x, background = (torch.randn(count, 5, 4, dtype=torch.float64) for count in (3, 4))
    found = DeepExplainer((model, model.layer), background).attribute(x)
    assert [value.shape for value in found.values] == [(3, 5, 4, 2)] * 2
    assert gap(found) < 1e-12
    with pytest.raises(ExplanationError, match="one made from another, which are told apart only for a layer alone"):
        DeepExplainer((model, [model.layer, model.head]), background).attribute(x)


def test_a_tensor_given_three_times_is_one() -> None:
    model = Nested()
    found = DeepExplainer((model, model.attention), BACKGROUND).attribute(X)
    assert found.values.shape == (3, 5, 4, 2)
    assert gap(found) < 1e-12


def test_what_runs_past_a_layer_of_a_model_of_integers_is_not_an_error() -> None:
    model = Nested()
    with pytest.warns(UserWarning, match="past the explained layer"):
        DeepExplainer((model, model.gate), BACKGROUND, at="output").attribute(X)


def test_the_last_layers_output_is_the_models() -> None:
    model = Nested()
    found = DeepExplainer((model, model.head), BACKGROUND, at="output").attribute(X)
    torch.testing.assert_close(found.values, torch.diag_embed(found.output - found.expected_value))
