"""Models that are random, or that mix the samples of a batch, are refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checks import unchanged
from models import Body, Function, Tokens, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError, MixedSamplesError


def _noise(x: Tensor) -> Tensor:
    return x + torch.randn(8).to(x)


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, training=True),
    "dropout_default": lambda x: F.dropout(x),
    "dropout1d": lambda x: F.dropout1d(x.unsqueeze(1), training=True).squeeze(1),
    "alpha_dropout": lambda x: F.alpha_dropout(x, training=True),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "noise": _noise,
    "noise_like": lambda x: x + torch.randn_like(x),
    "noise_product": lambda x: x * torch.rand(8).to(x),
    "noise_in_place": lambda x: x + torch.empty_like(x).normal_(),
    "bernoulli": lambda x: x * torch.bernoulli(x.sigmoid()),
    "gumbel": lambda x: F.gumbel_softmax(x, dim=1),
    "permutation": lambda x: x[:, torch.randperm(8)],
    "random_choice": lambda x: x.relu() if torch.rand(()) > 0.5 else x.sigmoid(),
    "random_number": lambda x: x * torch.rand(()).item(),
    "numpy_noise": lambda x: x + torch.from_numpy(np.random.randn(8)).to(x),
    "multinomial": lambda x: x.gather(1, torch.multinomial(x.softmax(1), 8)),
}


@pytest.mark.parametrize("function", RANDOM.values(), ids=RANDOM.keys())
def test_random_operations_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    model = spread(Body(function))
    x, background = torch.randn(3, 6), torch.randn(4, 6)
    with unchanged(model, x, background), pytest.raises(ExplanationError):
        DeepExplainer(model, background).attribute(x)


MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "batch_norm": nn.BatchNorm1d(8, track_running_stats=False),
    "batch_statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "centre": lambda x: x - x.mean(0),
    "centre_detached": lambda x: x - x.mean(0).detach(),
    "scale": lambda x: x / x.detach().std(0, unbiased=False).clamp_min(0.1),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1, 0).relu(),
    "reverse": lambda x: x[list(range(len(x)))[::-1]],
    "swap_first_two": lambda x: x[[1, 0, *range(2, len(x))]] if len(x) > 1 else x,
    "softmax": lambda x: x.softmax(0),
    "sum": lambda x: x + x.sum(0, keepdim=True),
    "cumulate": lambda x: x.cumsum(0),
    "maximum": lambda x: x - x.amax(0, keepdim=True).detach(),
    "previous": lambda x: x + torch.cat([torch.zeros_like(x[:1]), x[:-1]]),
    "first": lambda x: x + x[:1],
    "last": lambda x: x + x[-1:].sigmoid(),
    "gram": lambda x: (x @ x.t()).softmax(1) @ x,
    "whole_norm": lambda x: x / x.norm(),
    "sort_batch": lambda x: x.sort(0).values,
    "flatten_mix": lambda x: x.view(-1).view(8, -1).t(),
}


@pytest.mark.parametrize("function", MIXED.values(), ids=MIXED.keys())
@pytest.mark.parametrize("baselines", [1, 4])
def test_models_that_mix_samples_are_refused(function: Callable[[Tensor], Tensor], baselines: int) -> None:
    model = spread(Body(function)).double()
    x, background = torch.randn(3, 6).double(), torch.randn(baselines, 6).double()
    with unchanged(model, x, background), pytest.raises(ExplanationError):
        DeepExplainer(model, background).attribute(x)


def test_the_operation_is_named_as_the_model_calls_it() -> None:
    """A maximum is taken apart into others here."""
    with pytest.raises(MixedSamplesError, match=r"^torch\.Tensor\.amax in Function: changing one sample"):
        DeepExplainer(Function(lambda x: x / x.amax(0)), torch.rand(4, 6))


@pytest.mark.parametrize("name", ["centre", "flip", "softmax", "gram", "cumulate"])
def test_mixing_is_named(name: str) -> None:
    with pytest.raises(MixedSamplesError, match=r"changing one sample of a batch changes|combines the samples"):
        DeepExplainer(spread(Body(MIXED[name])).double(), torch.randn(4, 6).double())


def test_mixed_integer_samples_are_refused() -> None:
    class Mixing(Tokens):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens.flip(0))

    model = spread(Mixing())
    background = torch.randint(11, (4, 5))
    with unchanged(model, background), pytest.raises(MixedSamplesError):
        DeepExplainer((model, model.encoder), background)


def test_equal_rows_do_not_hide_mixing() -> None:
    """A background of equal rows, or of zeros, tells nothing about mixing by itself."""
    for background in (torch.zeros(3, 6), torch.ones(3, 6), torch.zeros(1, 6)):
        with pytest.raises(MixedSamplesError):
            DeepExplainer(spread(Body(lambda x: x.relu() - x.mean(0))), background)


def test_dead_regions_do_not_hide_mixing() -> None:
    """The baselines' rows leave a relu at zero, so that changing them changes nothing behind it."""
    model = Function(lambda x: torch.relu(x - 1).flip(0) + x)
    background, x = torch.zeros(3, 2), torch.tensor([[3.0, 5.0], [0.0, 1.0], [4.0, 0.5]])
    with unchanged(model, x, background), pytest.raises(ExplanationError):
        DeepExplainer(model, background).attribute(x)


def _broken(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 2 * x)


def test_a_model_of_one_batch_size_is_named() -> None:
    model = Function(lambda x: x.view(4, 6).tanh())
    with pytest.raises(ExplanationError, match="runs on a batch of 4 samples but not on one of 2"):
        DeepExplainer(model, torch.randn(4, 6))
    with pytest.raises(RuntimeError, match="invalid for input of size 12"):
        DeepExplainer(model, torch.randn(2, 6))
