"""What is found out about a model before it is explained: the place of the batch, never guessed at, and once."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from checks import assert_same, explain
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError


class SequenceFirst(nn.Module):
    """Merges a sequence-first batch into rows ``[S*B]``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.at = nn.Embedding(9, 8), nn.Parameter(torch.randn(6, 1, 8))
        self.hidden, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens).transpose(0, 1) + self.at
        s, b, d = h.shape
        return self.head(torch.tanh(self.hidden(h.reshape(s * b, d))).view(s, b, d).sum(0))


@pytest.mark.parametrize("background", [torch.zeros(1, 6, dtype=torch.int64), torch.full((3, 6), 4)])
def test_a_background_of_equal_tokens(background: Tensor) -> None:
    """No row of it can be changed: the rows to explain tell the layouts apart."""
    model = SequenceFirst().double()
    tokens = torch.randint(1, 9, (3, 6))
    found = DeepExplainer((model, model.embed), background, at="output").attribute(tokens)
    assert found.convergence_delta.abs().max() < 1e-13
    varied = torch.cat([background[:1], torch.randint(9, (1, 6))])
    both = DeepExplainer((model, model.embed), varied, at="output").attribute(tokens)
    # The mean over both baselines, of which one is that of the background.
    other = DeepExplainer((model, model.embed), varied[1:], at="output").attribute(tokens)
    assert_same(found.values + other.values, 2 * both.values, 1e-12)


def test_one_input_that_equals_its_baseline() -> None:
    model, tokens = SequenceFirst().double(), torch.full((1, 6), 3)
    values = DeepExplainer((model, model.embed), tokens, at="output").attribute(tokens).values
    assert torch.equal(values, torch.zeros_like(values))


class Dead(nn.Module):
    """Of small rows the tanh sees zeros only."""

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(torch.relu(x.t().reshape(-1, 1) - 10) * 0.1)
        weights = torch.arange(1.0, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return (h.view(x.shape[1], -1) * weights).sum(0).unsqueeze(1)


def test_units_that_are_dead_in_the_first_rows() -> None:
    x, background = torch.rand(3, 4).double() * 30, torch.rand(6, 4).double()
    background[4:] = torch.tensor([[12.0, 15, 11, 30], [2, 13, 21, 10.5]])
    found = explain(Dead(), x, background)
    assert_same(found.values, explain(Dead(), x, background.flip(0)).values, 1e-12)


def test_units_that_are_alive_in_the_inputs_only() -> None:
    x, background = torch.rand(3, 4).double() * 30, torch.rand(6, 4).double()
    found = explain(Dead(), x, background)
    assert_same(found.values, DeepExplainer(Dead(), background).attribute(x, pairing="aligned").values, 1e-12)


def test_units_that_are_dead_everywhere() -> None:
    x = torch.rand(3, 4).double()
    values = DeepExplainer(Dead(), torch.rand(6, 4).double()).attribute(x).values
    assert torch.equal(values, torch.zeros_like(values))


class Codes(nn.Module):
    """A category's code in a column of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(4, 3), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.embed(x[:, 0].long()), x[:, 1:]], 1))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("code", [0, 3])
def test_codes_are_not_made_up(rows: int, code: int) -> None:
    x = torch.cat([torch.full((3, 1), float(code)), torch.randn(3, 5)], 1).double()
    model = Codes().double()
    found = DeepExplainer(model, x[:rows]).attribute(x)
    assert found.convergence_delta.abs().max() < 1e-13
    assert torch.equal(found.values[:, 0], torch.zeros(3, 1).double())


class Squeezed(nn.Module):
    """Loses the batch dimension of a single row, at the end or on the way."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, hidden))
        self.last = nn.Parameter(torch.randn(hidden, 2)) if hidden > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(x).squeeze()
        return h if self.last is None else torch.tanh(h) @ self.last


@pytest.mark.parametrize("hidden", [1, 5])
@pytest.mark.parametrize("how", [{}, {"pairing": "aligned"}, {"baselines": 3}, {"target": 0}])
@pytest.mark.parametrize("baselines", [1, 7])
def test_one_row_of_a_model_that_squeezes(hidden: int, how: dict[str, Any], baselines: int) -> None:
    model, x, background = Squeezed(hidden).double(), torch.randn(5, 4).double(), torch.randn(baselines, 4).double()
    explainer = DeepExplainer(model, background)
    if "baselines" in how:
        own = torch.randn(5, 3, 4).double()
        found = explainer.attribute(x[:1], baselines=own[:1], standard_error=True)
        together = explainer.attribute(x, baselines=own, standard_error=True)
        assert_same(found.standard_error, together.standard_error[:1], 1e-12)
    else:
        found, together = explainer.attribute(x[:1], **how), explainer.attribute(x, **how)
    assert found.output.shape == together.output[:1].shape
    assert_same(found.values, together.values[:1], 1e-12)
    assert_same(
        torch.as_tensor(explainer.expected_value).reshape(-1),
        model(background.repeat(2, 1)).reshape(2 * baselines, -1).mean(0).detach(),
        1e-12,
    )


def test_chunks_of_one_row_of_a_model_that_squeezes() -> None:
    model, x, background = Squeezed(5).double(), torch.randn(5, 4).double(), torch.randn(7, 4).double()
    small, large = (
        DeepExplainer(model, background, max_memory=m).attribute(x, standard_error=True) for m in (5000, None)
    )
    assert_same(small.values, large.values, 1e-12)
    assert_same(small.standard_error, large.standard_error, 1e-12)


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        calls.append(tuple(x.shape))
        return self.fc(x).relu()


calls: list[tuple[int, ...]] = []


def test_a_model_is_probed_once() -> None:
    model = Counted()
    DeepExplainer(model, torch.randn(3, 4))
    calls.clear()
    DeepExplainer(model, torch.randn(5, 4))
    assert not calls
    DeepExplainer(model, torch.randn(5, 3, 4))
    assert calls


def test_a_model_that_has_changed_since_it_was_probed() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    background, x = torch.randn(5, 4).double(), torch.randn(3, 4).double()
    explainer = DeepExplainer(model, background)
    model[1] = nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Softmax(1), nn.Flatten(), nn.Tanh())
    found = explainer.attribute(x)
    assert found.convergence_delta.abs().max() < 1e-13
    assert_same(found.values, DeepExplainer(model, background).attribute(x).values, 1e-12)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.temperature = nn.Linear(5, 3), 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).relu() / self.temperature * factor[0]


factor = [1.0]


@pytest.mark.parametrize("change", ["data", "attribute", "global"])
def test_the_expected_value_is_the_models_as_it_is_now(change: str) -> None:
    model, background, x = Scaled().double(), torch.randn(6, 5).double(), torch.randn(4, 5).double()
    explainer = DeepExplainer(model, background)
    before = explainer.expected_value
    if change == "data":
        model.fc.weight.data.mul_(2)
    elif change == "attribute":
        model.temperature = 0.2
    else:
        factor[0] = 3.0
    try:
        now = model(background).mean(0).detach()
        assert not torch.allclose(torch.as_tensor(before), now)
        assert_same(torch.as_tensor(explainer.expected_value), now, 1e-13)
        found = explainer.attribute(x)
        assert_same(found.expected_value[0], now, 1e-13)
        assert found.convergence_delta.abs().max() < 1e-12
    finally:
        factor[0] = 1.0


class Steps(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.fc, self.steps = nn.Linear(4, 4), steps

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.steps):
            x = x + 0.01 * torch.tanh(self.fc(x))
        return x


def test_making_an_explainer_is_linear_in_depth() -> None:
    """Counted in Python calls, which do not depend on what else the machine does."""

    def made(steps: int) -> int:
        count = 0

        def profile(frame: Any, event: str, argument: Any) -> None:
            nonlocal count
            count += 1

        sys.setprofile(profile)
        try:
            DeepExplainer(Steps(steps), torch.randn(3, 4))
        finally:
            sys.setprofile(None)
        return count

    few, many = made(50), made(400)
    assert many < 8.5 * few, f"{math.log(many / few, 8):.2f} is the exponent"


class Counting(nn.Module):
    """Gives another output where a mode sees its operations."""

    def __init__(self, seen: bool) -> None:
        super().__init__()
        self.fc, self.seen = nn.Linear(4, 2), seen

    def forward(self, x: Tensor) -> Tensor:
        followed = torch.is_grad_enabled() and x.requires_grad
        return self.fc(x).relu() * (2 if followed and self.seen else 1)


def test_the_followed_output_is_the_models_own() -> None:
    with pytest.raises(
        ExplanationError, match="another output when its operations are followed than by itself, apart by"
    ):
        DeepExplainer(Counting(True), torch.randn(5, 4)).attribute(torch.randn(3, 4))
    model = Counting(False)
    explainer = DeepExplainer(model, torch.randn(5, 4))
    explainer.attribute(torch.randn(3, 4))
    model.seen = True  # compared once for an explainer
    explainer.attribute(torch.randn(3, 4))
