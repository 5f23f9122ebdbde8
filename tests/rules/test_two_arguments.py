"""Elementwise functions of two and three tensors: their exact Shapley values, near and far, and their spellings in a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.shapley import shapley_values
from rules.adding_up import check
from rules.linear_samples import const, written
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

Players = Callable[..., Tensor]


def positive(x: Tensor) -> Tensor:
    return x.exp()


def anything(x: Tensor) -> Tensor:
    return 3 * x


#: Functions of the players, and what makes players out of normal numbers.
FUNCTIONS: dict[str, tuple[Players, Callable[[Tensor], Tensor], int]] = {
    "pow": (torch.pow, positive, 2),
    "atan2": (torch.atan2, lambda x: x.abs() + 0.1, 2),
    "atan2, all directions": (torch.atan2, anything, 2),
    "hypot": (torch.hypot, anything, 2),
    "logaddexp": (torch.logaddexp, anything, 2),
    "logaddexp2": (torch.logaddexp2, anything, 2),
    "xlogy": (torch.xlogy, positive, 2),
    "xlog1py": (torch.special.xlog1py, positive, 2),
    "maximum": (torch.maximum, anything, 2),
    "fmin": (torch.fmin, anything, 2),
    "clamp": (torch.clamp, anything, 3),
    "clamp_min": (lambda x, low: torch.clamp_min(x, low), anything, 2),
    "clamp_max": (lambda x, high: torch.clamp(x, max=high), anything, 2),
    "product of three": (lambda *factors: torch.stack(factors, -1).prod(-1), anything, 3),
    "product of five": (lambda *factors: torch.stack(factors).prod(0), anything, 5),
    "cumulative product": (lambda *factors: torch.stack(factors, 1).cumprod(1).sum(1), anything, 4),
    "einsum of three": (lambda *factors: torch.einsum("b,b,b->b", *factors), anything, 3),
}


class OfPlayers(nn.Module):
    def __init__(self, function: Players) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(*(player.squeeze(1) for player in x.split(1, 1))).unsqueeze(1)


@pytest.mark.parametrize("apart", [1.0, 1e-3, 1e-7])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_exact_shapley_values(name: str, apart: float) -> None:
    function, draw, players = FUNCTIONS[name]
    r = torch.randn(40, players, dtype=torch.float64)
    x = torch.randn(40, players, dtype=torch.float64) if apart == 1 else r + apart * torch.randn_like(r)
    x[:5, 0] = r[:5, 0]
    x, r = draw(x), draw(r)
    model = OfPlayers(function)
    found = DeepExplainer(model, r[:1], additivity_tolerance=1e-6).attribute(x, baselines=r.unsqueeze(1)).values
    for ours, x_one, r_one in zip(found, x, r, strict=True):
        exact = shapley_values(model, x_one, r_one)
        # By brute force the differences cancel.
        torch.testing.assert_close(ours, exact, rtol=1e-11, atol=1e-13 * float(1 + model(x).abs().max()))


@pytest.mark.parametrize("name", ["pow", "atan2", "hypot", "logaddexp", "logaddexp2", "xlogy"])
def test_equal_sides_have_the_gradient(name: str) -> None:
    """A multiplier flows on where a value does not change but what it is made of does."""
    function, draw, _ = FUNCTIONS[name]
    x = draw(torch.randn(3, 2, dtype=torch.float64)).requires_grad_()
    model = OfPlayers(function)
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    x = x.detach()
    moved = torch.tensor([[1.0, -1.0]]).double()
    for player in range(2):
        own = torch.stack(
            [x, x], -1
        )  # each player the sum of two numbers that change by as much in opposite directions
        other = own.clone()
        other[:, player] += moved
        summed = OfPlayers(lambda *parts: function(parts[0] + parts[1], parts[2] + parts[3]))
        values = DeepExplainer(summed, (other / 2).flatten(1)[:1], additivity_tolerance=1.0).attribute(
            (own / 2).flatten(1), baselines=(other / 2).flatten(1).unsqueeze(1), check_additivity=False
        )
        expected = -moved / 2 * gradient[:, player : player + 1]
        torch.testing.assert_close(values.values[:, 2 * player : 2 * player + 2, 0], expected, rtol=1e-9, atol=1e-10)


P, ONE = const(6).abs() + 0.5, torch.tensor([3.0]).double()

SPELLINGS: dict[str, Callable[[Tensor], Any]] = {
    "power of a parameter of one": lambda h: h.clamp(min=1e-6).pow(ONE),
    "generalized mean": lambda h: h.clamp(min=1e-6).pow(ONE).mean(1, keepdim=True).pow(1 / ONE),
    "a power a channel": lambda h: h.clamp(min=1e-6) ** (2 * P),
    "a power a channel, of zeros": lambda h: h.relu() ** (2 * P),
    "small power of zeros": lambda h: h.relu() ** (P / 3),
    "integer powers": lambda h: h ** torch.tensor([2, 3, 1, 2, 0, 2]),
    "integer powers as numbers with a point": lambda h: h ** torch.tensor([2.0, 3, 1, 2, 0, 2]).double(),
    "negative powers": lambda h: h.exp() ** -P,
    "power of the input": lambda h: h.sigmoid() ** h.tanh(),
    "constant base": lambda h: torch.pow(P, h) + 2**h + torch.pow(3, h),
    "base of zero": lambda h: torch.pow(torch.tensor([0.0, 1, 2, 0, 1, 3]).double(), h.exp()),
    "float_power": lambda h: torch.float_power(h.exp(), 1.7) + h.exp().float_power(P) + torch.float_power(2, h),
    "float_power of float": lambda h: torch.float_power(h.float().exp(), 2) * 1e3,
    "float_power in place": lambda h: written(h.exp(), lambda y: y.float_power_(P)),
    "power in place": lambda h: written(h.exp(), lambda y: y.pow_(P)),
    "power in aten": lambda h: torch.ops.aten.pow.Tensor_Tensor(h.exp(), P) + torch.ops.aten.pow.Scalar(2, h),
    "clamp to tensors": lambda h: h.clamp(-P / 2, P) + torch.clamp(h, min=P) + torch.clip(h, max=-P),
    "clamp to a row": lambda h: torch.clamp(h[:, :, None], P[:3] - 1, P[:3]),
    "clamp to bounds that cross": lambda h: torch.clamp(h, P, -P) + h,
    "clamp to the input": lambda h: h.clamp(h.roll(1, 1) - 0.3, h.roll(2, 1) + 0.2),
    "clamp a constant": lambda h: torch.clamp(P, min=h) + torch.clamp_max(P, h),
    "clamp in place": lambda h: written(h.clone(), lambda y: y.clamp_(-P, P)),
    "clamp a constant in place": lambda h: written(P.expand_as(h), lambda y: y.clamp_(h, h + 1)),
    "atan2 with a constant": lambda h: torch.atan2(h, P) + 2 * torch.atan2(P, h) + torch.arctan2(h, -P),
    "atan2 in place": lambda h: written(h, lambda y: y.atan2_(h.sin())),
    "hypot": lambda h: torch.hypot(h, h.cos()) + h.hypot(P),
    "logaddexp": lambda h: torch.logaddexp(h, 3 * h.cos()) + torch.logaddexp2(h, P),
    "logaddexp of nothing": lambda h: torch.logaddexp(h, torch.tensor([-torch.inf, 0, 0, 1, 1, 1]).double()),
    "logaddexp from a lower side": lambda h: torch.logaddexp(h[:, :1], h),
    "xlogy with numbers": lambda h: torch.xlogy(h, 2.0) + torch.special.xlogy(2.0, h.exp()) + torch.xlogy(h, h.exp()),
    "xlogy of zeros": lambda h: torch.xlogy(torch.tensor([0.0, 1, 0, 2, 0, 1]).double(), h.relu() + 0.1 * P.round()),
    "xlogy from zero": lambda h: torch.xlogy(h.relu(), P),
    "xlogy in place": lambda h: written(h, lambda y: y.xlogy_(P)),
    "xlog1py": lambda h: torch.special.xlog1py(h, h.exp()) + torch.special.xlog1py(h, 0.5),
    "copysign": lambda h: torch.copysign(h, const(6)) + h.copysign(-2.0) + torch.copysign(P, const(6).sign() * h.exp()),
    "polar": lambda h: torch.view_as_real(torch.polar(h.exp(), h)),
    "spectrum": lambda h: torch.fft.rfft(h).abs() + torch.fft.rfft(h).angle(),
    "spectrum in decibels": lambda h: torch.fft.rfft(h).abs().square().add(1e-3).log10(),
    "angle of real numbers": lambda h: h + h.exp().angle() + (-h.exp()).angle(),
    "complex conjugates": lambda h: (
        torch.complex(h, -h).conj().resolve_conj().imag
        + torch.complex(h, h.flip(1)).conj().imag
        + torch.conj_physical(torch.complex(h, h)).imag
    ),
    "dist": lambda h: torch.stack([torch.dist(row, row.sin(), 3) for row in h]),
    "pdist": lambda h: torch.stack([torch.nn.functional.pdist(row.view(3, 2), 1.5) for row in h]),
    "maximum with constants": lambda h: (
        torch.maximum(h, P) + torch.fmax(P, h) + torch.minimum(h, -P) + torch.fmin(h, P)
    ),
    "maximum of other shapes": lambda h: torch.maximum(h[:, :1], h) + torch.min(h, h.cos().mean(1, keepdim=True)),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_adds_up(name: str) -> None:
    check(SPELLINGS[name], 1e-5 if name == "float_power of float" else 1e-12)


def test_several_multipliers_stay_in_their_range() -> None:
    """Of a smooth maximum, a length and a clamp all multipliers lie in [0, 1], however far the sides are."""
    for function in (
        torch.logaddexp,
        torch.logaddexp2,
        torch.maximum,
        torch.clamp_min,
        lambda a, b: torch.hypot(a.exp(), b.exp()),
    ):
        r = 100 * torch.randn(50, 2, dtype=torch.float64)
        x = r + 10 ** (6 * torch.rand_like(r) - 5) * torch.randn_like(r)
        r, x = (torch.where(side.abs() > 300, 300.0, side) for side in (r, x))
        found = DeepExplainer(OfPlayers(function), r[:1]).attribute(x, baselines=r.unsqueeze(1)).values[..., 0]
        ratio = (
            (found / (x - r))[x != r] if "lambda" not in function.__name__ else (found / (x.exp() - r.exp()))[x != r]
        )
        assert (ratio >= -1e-12).all() and (ratio <= 1 + 1e-9).all()
