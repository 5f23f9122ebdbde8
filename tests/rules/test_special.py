"""Special functions: their divided differences against mpmath, near and far, and their spellings in a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf
from rules.adding_up import check
from rules.linear_samples import const, written
from torch import Tensor

from deepshap_ext.rules.registry import RULES

BITS = 700
#: Of the largest of |f[x, r]| over the pair, in float64; what is left is the rounding of torch's own function.
ACCURACY = 2e-14


def _erfcx(x: mpf) -> mpf:
    if x > 15:  # the asymptotic series: exp(x^2) needs as many bits
        return (
            sum((-1) ** k * mpmath.fac2(2 * k - 1) / (2 * x * x) ** k for k in range(40)) / x / mpmath.sqrt(mpmath.pi)
        )
    with mpmath.workprec(BITS + int(8 * x * x)):
        return mpmath.exp(x * x) * mpmath.erfc(x)


def _around(*centres: float) -> Callable[[np.random.Generator], np.ndarray]:
    """Random numbers of all sizes up to 1e3 and about these centres."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        about = rng.choice(centres, 20) * (1 + rng.normal(size=20) * 10 ** rng.uniform(-6, -1, 20))
        return np.concatenate([rng.normal(size=20) * 3, rng.normal(size=20) * 10 ** rng.uniform(-3, 3, 20), about])

    return draw


def _positive(*centres: float) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: abs(_around(*centres)(rng))


def _inside(low: float, high: float, nearest: float) -> Callable[[np.random.Generator], np.ndarray]:
    """Between two ends, also as near to them as that."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        ends = nearest ** rng.uniform(0.1, 1, 30)
        return np.concatenate([rng.uniform(low, high, 30), low + ends[:15], high - ends[15:]])

    return draw


Oracle = tuple[Callable[[Tensor], Tensor], Callable[[mpf], mpf], Callable[[np.random.Generator], np.ndarray]]

FUNCTIONS: dict[str, Oracle] = {
    "sinc": (torch.sinc, mpmath.sincpi, _around(1.0, 0.01, 4.49)),
    "erfcx": (torch.special.erfcx, _erfcx, lambda rng: np.maximum(_around(3.0, 0.1, 1e5)(rng), -20)),
    "erfinv": (torch.erfinv, mpmath.erfinv, _inside(-1, 1, 1e-7)),
    "ndtri": (torch.special.ndtri, lambda x: mpmath.sqrt(2) * mpmath.erfinv(2 * x - 1), _inside(0, 1, 1e-7)),
    "log_ndtr": (
        torch.special.log_ndtr,
        lambda x: mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2),
        lambda rng: np.clip(_around(-5.0, 1.0)(rng), -40, 8),
    ),
    "entr": (torch.special.entr, lambda x: -x * mpmath.log(x), _positive(0.37, 1.0, 1e-9)),
    "lgamma": (torch.lgamma, lambda x: mpmath.log(abs(mpmath.gamma(x))), _positive(1.0, 2.0, 1e-5)),
    "digamma": (torch.digamma, mpmath.digamma, _positive(1.46, 1e-5)),
    "i0": (torch.i0, lambda x: mpmath.besseli(0, x), lambda rng: np.clip(_around(1.0)(rng), -300, 300)),
    "i0e": (torch.special.i0e, lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)), _around(1.0, 30.0)),
    "i1": (torch.special.i1, lambda x: mpmath.besseli(1, x), lambda rng: np.clip(_around(1.0)(rng), -300, 300)),
    "i1e": (torch.special.i1e, lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x)), _around(1.0, 30.0)),
}


class _Context:
    def carries(self, value: Any) -> bool:
        return True


class _Sides:
    def __init__(self, *sides: Tensor) -> None:
        self._sides = sides

    def pair(self, position: int = 0) -> tuple[Tensor, ...]:
        return self._sides


def _pairs(draw: Callable[[np.random.Generator], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Equal, 1e-15 to 1e-1 apart, and unrelated."""
    rng = np.random.default_rng(0)
    x = draw(rng)
    apart = 10 ** rng.uniform(-15, -1, len(x))
    near = np.where(rng.random(len(x)) < 0.1, x, x * (1 - apart))
    return np.concatenate([x, x]), np.concatenate([near, rng.permutation(draw(rng))])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_divided_difference(name: str) -> None:
    function, exactly, draw = FUNCTIONS[name]
    one, other = _pairs(draw)
    x, r = torch.from_numpy(one), torch.from_numpy(other)
    application = RULES[name](_Context(), x)
    torch.testing.assert_close(application.forward(x)[0], function(x), rtol=0, atol=0)
    (found,) = application.multipliers(torch.ones_like(x), _Sides(x, r))
    (reflected,) = application.multipliers(torch.ones_like(x), _Sides(r, x))
    with mpmath.workprec(BITS):
        for a, b, ours, again in zip(one.tolist(), other.tolist(), found.tolist(), reflected.tolist(), strict=True):
            x_one, r_one = mpf(a), mpf(b)
            if a == b:
                step = abs(x_one) * mpf(2) ** -200
                x_one, r_one = x_one + step, r_one - step
            exact = (exactly(x_one) - exactly(r_one)) / (x_one - r_one)
            # Where the values turn back, the slopes on the way cancel.
            size = max(abs(exact), abs(exactly((x_one + r_one) / 2) - exactly(r_one)) / abs(x_one - r_one))
            assert abs(ours - exact) <= ACCURACY * size, (a, b, ours, float(exact))
            assert abs(again - exact) <= ACCURACY * size, (b, a, again, float(exact))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_difference_of_nothing_has_a_finite_share(name: str) -> None:
    """Also where the derivative is infinite, and where a side is."""
    ends = torch.tensor([0.0, 1.0, -1.0, 0.5, torch.inf, -torch.inf], dtype=torch.float64)
    function = FUNCTIONS[name][0]
    ends = ends[function(ends).isfinite()]
    (found,) = RULES[name](_Context(), ends).multipliers(torch.ones_like(ends), _Sides(ends, ends))
    assert found[ends.isfinite()].isfinite().all()


def _between(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda h: function(0.1 + 0.8 * h.sigmoid())


SPELLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: _between(function) for name, (function, _, _) in FUNCTIONS.items()},
    "gammaln": lambda h: torch.special.gammaln(h.exp()),
    "psi": lambda h: torch.special.psi(h.exp()),
    "in place": lambda h: written(h.exp(), lambda y: y.lgamma_()) + written(h.tanh() / 2, lambda y: y.erfinv_()),
    "aten": lambda h: torch.ops.aten.digamma.default(h.exp()),
    "half-precision": lambda h: torch.special.i0e(h.float()).double() * 1e3 + torch.special.i0e(h),
    "logit": lambda h: torch.logit(h.sigmoid()) + torch.special.logit(h.sin(), eps=0.3),
    "logit in place": lambda h: written(h.sigmoid(), lambda y: y.logit_(0.2)),
    "ndtr": lambda h: torch.special.ndtr(h),
    "mvlgamma": lambda h: torch.mvlgamma(h.exp() + 2, 3) + torch.special.multigammaln(h.exp() + 2, p=2),
    "several at once": lambda h: torch.special.entr(h.softmax(1)) * torch.lgamma(const(6).abs() + h.exp()),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_adds_up(name: str) -> None:
    check(SPELLINGS[name], 1e-5 if name == "half-precision" else 1e-12)
