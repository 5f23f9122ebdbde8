"""Elementwise functions of two tensors: by their divided difference in each, or decomposed into operations that have a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .differences import Difference, rescaled, smooth
from .registry import Application, Context, decomposition, rule


def _register(name: str, function: Callable[..., Tensor], differences: Sequence[Difference]) -> None:
    @rule(name)
    def of_two(context: Context, input: Tensor, other: Tensor) -> Application:
        return rescaled(context, function, [input, other], differences)


def _hypot(x: Tensor, r: Tensor, other: Tensor) -> Tensor:
    total = torch.hypot(x, other) + torch.hypot(r, other)
    return torch.where(total == 0, 0, (x + r) / total)


#: The divided differences of hypot in each of its arguments, also for the absolute value of a complex number.
HYPOT = (_hypot, _hypot)


def _atan2(x: Tensor, r: Tensor, other: Tensor, sign: int) -> Tensor:
    """``atan2(., other)[x, r]`` (sign 1) and ``atan2(other, .)[x, r]`` (sign -1)."""
    one, two = (torch.atan2(t, other) if sign == 1 else torch.atan2(other, t) for t in (x, r))
    step, square = x - r, other.square()
    # The angle between the two directions, computed directly, does not cancel. The difference of their two angles is taken where that is
    # wider than a right angle, and where atan2 jumps by 2 pi between them.
    between = torch.atan2(sign * other * step, square + x * r)
    jump = (other < 0) & (x.signbit() != r.signbit()) & (sign == 1)
    turn = torch.where((square + x * r > 0) & ~jump, between, one - two) / step
    length = square + x.square()
    return torch.where(step == 0, torch.where(length == 0, 0, sign * other / length), turn)


_register("hypot", torch.hypot, HYPOT)
_register("atan2", torch.atan2, [partial(_atan2, sign=1), partial(_atan2, sign=-1)])


def _of_logaddexp(x: Tensor, r: Tensor, other: Tensor) -> Tensor:
    return smooth(lambda t: torch.logaddexp(t, other), lambda t: torch.sigmoid(t - other), x, r)


def _of_logaddexp2(x: Tensor, r: Tensor, other: Tensor) -> Tensor:
    return smooth(lambda t: torch.logaddexp2(t, other), lambda t: torch.sigmoid((t - other) * math.log(2)), x, r)


_register("logaddexp", torch.logaddexp, (_of_logaddexp, _of_logaddexp))
_register("logaddexp2", torch.logaddexp2, (_of_logaddexp2, _of_logaddexp2))


def _register_times_log(name: str, log: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> None:
    def of_factor(x: Tensor, r: Tensor, other: Any) -> Tensor:
        logarithm = log(torch.as_tensor(other, dtype=x.dtype, device=x.device))
        return torch.where((x == r) & ~logarithm.isfinite(), 0, logarithm)

    def of_argument(x: Tensor, r: Tensor, factor: Any) -> Tensor:
        factor = torch.as_tensor(factor, dtype=x.dtype, device=x.device)
        return torch.where(factor == 0, 0, factor * smooth(log, slope, x, r))

    _register(name, getattr(torch.special, name), (of_factor, of_argument))


_register_times_log("xlogy", torch.log, torch.reciprocal)
_register_times_log("xlog1py", torch.log1p, lambda t: 1 / (1 + t))


@decomposition("copysign")
def _copysign(input: Tensor, other: Any) -> Tensor:
    other = torch.as_tensor(other, dtype=input.dtype, device=input.device) if not isinstance(other, Tensor) else other
    return input.abs() * torch.where(other.signbit(), -1, 1)


@decomposition("polar")
def _polar(abs: Tensor, angle: Tensor) -> Tensor:
    return torch.complex(abs * angle.cos(), abs * angle.sin())


@decomposition("angle")
def _angle(input: Tensor) -> Tensor:
    if input.is_complex():
        return torch.atan2(input.imag, input.real)
    return torch.where(input < 0, math.pi, torch.zeros_like(input))


@decomposition("dist")
def _dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    return torch.linalg.vector_norm(input - other, p)


@decomposition("pdist")
def _pdist(input: Tensor, p: float = 2.0) -> Tensor:
    one, other = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return torch.linalg.vector_norm(input.index_select(0, one) - input.index_select(0, other), p, -1)
