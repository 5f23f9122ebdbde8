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
