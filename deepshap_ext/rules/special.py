"""Special functions, elementwise, by divided differences composed of torch operations."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from .differences import Difference, Elementwise, inverse, piecewise, rescaled, smooth
from .registry import RULES, Application, Context, decomposition


def _register(names: str, function: Elementwise, difference: Difference) -> None:
    def rule(context: Context, input: Tensor) -> Application:
        return rescaled(context, function, [input], [difference])

    for name in names.split():
        RULES[name] = rule


def _register_smooth(names: str, function: Elementwise, derivative: Elementwise) -> None:
    _register(names, function, lambda x, r: smooth(function, derivative, x, r))


def _sinc(x: Tensor) -> tuple[Tensor, Tensor]:
    """``sin(pi x) / (pi x)`` and its derivative ``-pi j1(pi x)``, j1 the spherical Bessel function ``(sin z - z cos z) / z^2``."""
    z, whole = math.pi * x, x.round()
    turned, sign = math.pi * (x - whole), 1 - 2 * whole.remainder(2)  # no digits of a large x are lost
    square, term = z.square(), z / 3
    series = term  # of j1, where that cancels
    for k in range(1, 12):
        term = -term * square / (2 * k * (2 * k + 3))
        series = series + term
    value = torch.where(x == 0, 1, sign * turned.sin() / z)
    return value, -math.pi * torch.where(square < 1, series, (value - sign * turned.cos()) / z)


def _trigamma(x: Tensor) -> Tensor:
    # zeta(2, x); torch.polygamma(1, x) has half the digits.
    left = x <= 0
    value = torch.special.zeta(torch.full_like(x, 2), torch.where(left, 1 - x, x))
    return torch.where(left, (math.pi / torch.sin(math.pi * x)).square() - value, value)


def _erfcx_slope(x: Tensor) -> Tensor:
    # 2 x erfcx(x) - 2 / sqrt(pi), which cancels for large x. There erfcx = 1 / (sqrt(pi) (x + rest)), rest a continued fraction.
    rest = torch.zeros_like(x)
    for k in range(60, 0, -1):
        rest = k / 2 / (x + rest)
    slope = 2 * x * torch.special.erfcx(x) - 2 / math.sqrt(math.pi)
    return torch.where(x > 3, -2 / math.sqrt(math.pi) * rest / (x + rest), slope)


def _log_ndtr(x: Tensor) -> Tensor:
    # Not torch.special.log_ndtr, which has no batching rule.
    left = (torch.special.erfcx(-x * math.sqrt(0.5)) / 2).log() - x.square() / 2
    return torch.where(x < 1, left, torch.log1p(-torch.erfc(x * math.sqrt(0.5)) / 2))


def _log_ndtr_slope(x: Tensor) -> Tensor:
    return math.sqrt(2 / math.pi) / torch.special.erfcx(-x * math.sqrt(0.5))


def _i1e_minus_i0e(x: Tensor) -> Tensor:
    # For x > 0. Where i1e and i0e are close, their difference is that of their asymptotic series (DLMF 10.40.1).
    first, second, series = torch.ones_like(x), torch.ones_like(x), torch.zeros_like(x)
    for k in range(1, 21):
        odd = (2 * k - 1) ** 2
        first, second = first * odd / (8 * k * x), second * (odd - 4) / (8 * k * x)
        series = series + (second - first)
    return torch.where(x > 30, series / (2 * math.pi * x).sqrt(), torch.special.i1e(x) - torch.special.i0e(x))


def _i1_over(x: Tensor, i1: Tensor) -> Tensor:
    return torch.where(x == 0, 0.5, i1 / x)


def _i1e_slope(x: Tensor) -> Tensor:
    return -_i1e_minus_i0e(x.abs()) - _i1_over(x, torch.special.i1e(x))


def _i0e_difference(x: Tensor, r: Tensor) -> Tensor:
    # A function of |x|, with a bend at 0.
    along = smooth(torch.special.i0e, _i1e_minus_i0e, x.abs(), r.abs())
    return along * piecewise(torch.abs, torch.sign, x, r)


_register("sinc", torch.sinc, lambda x, r: smooth(lambda t: _sinc(t)[0], lambda t: _sinc(t)[1], x, r))
_register_smooth("erfcx", torch.special.erfcx, _erfcx_slope)
_register("erfinv", torch.erfinv, partial(inverse, torch.erfinv, lambda y: 2 / math.sqrt(math.pi) * (-y * y).exp()))
_register(
    "ndtri",
    torch.special.ndtri,
    partial(inverse, torch.special.ndtri, lambda y: (-y * y / 2).exp() / math.sqrt(2 * math.pi)),
)
_register("log_ndtr", torch.special.log_ndtr, lambda x, r: smooth(_log_ndtr, _log_ndtr_slope, x, r))
_register_smooth("entr", torch.special.entr, lambda x: -1 - x.log())
_register_smooth("lgamma gammaln", torch.lgamma, torch.digamma)
_register_smooth("digamma psi", torch.digamma, _trigamma)
_register_smooth("i0", torch.i0, torch.special.i1)
_register("i0e", torch.special.i0e, _i0e_difference)
_register_smooth("i1", torch.special.i1, lambda x: torch.i0(x) - _i1_over(x, torch.special.i1(x)))
_register_smooth("i1e", torch.special.i1e, _i1e_slope)


@decomposition("logit")
def _logit(input: Tensor, eps: float | None = None) -> Tensor:
    inside = input if eps is None else input.clamp(eps, 1 - eps)
    return inside.log() - (-inside).log1p()


@decomposition("ndtr")
def _ndtr(input: Tensor) -> Tensor:
    return torch.erfc(-math.sqrt(0.5) * input) / 2


@decomposition("mvlgamma")
def _mvlgamma(input: Tensor, p: int) -> Tensor:
    constant = p * (p - 1) / 4 * math.log(math.pi)
    return torch.stack([torch.lgamma(input - i / 2) for i in range(p)]).sum(0) + constant
