"""Divided differences composed of torch operations, and the rule of elementwise functions of one or several tensors made from them.

With several arguments each has its Shapley value, by the divided differences in that argument alone: of two,
``m_a = (f(., b_x)[a_x, a_r] + f(., b_r)[a_x, a_r]) / 2``. It is complete, and as bounded as the differences are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .products import sum_to
from .registry import Application, Context

Elementwise = Callable[[Tensor], Tensor]
#: ``difference(x, r, *others)``: the divided difference in one argument between its two sides, the other arguments being held, in order.
Difference = Callable[..., Tensor]

#: Gauss-Legendre nodes and weights on [0, 1], by their number.
_NODES = {
    count: [((1 + float(t)) / 2, float(w) / 2) for t, w in zip(*np.polynomial.legendre.leggauss(count), strict=True)]
    for count in (8, 16)
}


def smooth(function: Elementwise, derivative: Elementwise, x: Tensor, r: Tensor) -> Tensor:
    """``f[x, r]`` of a function whose derivative is analytic; ``f'(x)`` where the sides are equal, or 0 if that is infinite."""
    slope = _slope(function(x), function(r), derivative, x, r)
    return slope.masked_fill((x == r) & slope.isinf(), 0)


def inverse(function: Elementwise, derivative: Elementwise, x: Tensor, r: Tensor) -> Tensor:
    """``f[x, r]`` where ``function`` is the inverse of one with this derivative: one over that one's, between ``f(x)`` and ``f(r)``."""
    slope = 1 / _slope(x - r, torch.zeros_like(x), derivative, function(x), function(r))
    return slope.masked_fill((x == r) & slope.isinf(), 0)


def _slope(f_x: Tensor, f_r: Tensor, derivative: Elementwise, x: Tensor, r: Tensor) -> Tensor:
    """``(f_x - f_r) / (x - r)``.

    Where the sides are close, the difference of the values cancels; there it is the mean of the derivative over the segment, by
    Gauss-Legendre quadrature. 16 nodes err by about the square of what 8 do, relative to the mean, so both are computed to know the error.
    At each pair the way with the smaller error bound is taken. But where the two ways disagree by far more than the bounds, the nodes have
    missed something between them, and the quotient is taken.
    """
    equal = x == r
    step = torch.where(equal, 0, x - r)  # also at infinity
    quotient = (f_x - f_r) / step
    few, _ = _mean(derivative, r, step, 8)
    mean, size = _mean(derivative, r, step, 16)
    eps = torch.finfo(x.dtype).eps
    by_quadrature = size * (((mean - few) / size).square() + eps)
    by_difference = _rounding(eps, f_x, f_r, size, x, r) / step.abs()
    near = (by_quadrature < by_difference) & ((mean - quotient).abs() < 1000 * by_difference)
    return torch.where(near | equal, mean, quotient)


def _rounding(eps: float, f_x: Tensor, f_r: Tensor, size: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """A bound for the error of ``f_x - f_r``, where ``|f'|`` is about ``size``: from the rounding of each value and of its argument."""
    return eps * (f_x.abs() + f_r.abs() + size * (x.abs() + r.abs()))


def by_ends(x: Tensor, r: Tensor, f_x: Tensor, f_r: Tensor, slope_x: Tensor, slope_r: Tensor, eps: float) -> Tensor:
    """``f[x, r]`` of a function that is known only by its values at both ends, rounded to ``eps``, and its derivatives there (NaN: none).

    It is the quotient of the differences, or the mean of the two derivatives where that differs from the quotient by rounding only. Where
    the sides are equal it is the derivative, or 0 if that is not finite.

    The mean errs by ``(x - r)^2 f''' / 12`` and the quotient by ``eps f / (x - r)``. Where the two errors are equal they are about
    ``(eps f)^(2/3) f'''^(1/3)``: relative to the steepest slope of common functions 1e-4 in float32 and 1e-10 in float64.

    The quotient alone would be noise where ``x`` is close to ``r``. This element's own contribution would still be right; but ``x - r`` may
    be a sum of much larger differences that cancel, and the multiplier is passed on to them.
    """
    equal = x == r
    step = torch.where(equal, 1, x - r)
    quotient, mean = (f_x - f_r) / step, (slope_x + slope_r) / 2
    rounding = _rounding(eps, f_x, f_r, (slope_x.abs() + slope_r.abs()) / 2, x, r) / step.abs()
    # A function of several operations rounds a few times.
    apart = (quotient - mean).abs()
    near = apart <= 4 * rounding
    # A function that cancels inside, as 1 - cos(x), rounds more than its value shows. So where the sides agree in half of their digits, and
    # the derivatives agree to rounding, the mean is taken up to a larger difference; beyond that the function jumps.
    close = step.abs() <= math.sqrt(eps) * torch.maximum(x.abs(), r.abs())
    near |= close & ((slope_x - slope_r).abs() <= 2 * rounding) & (apart <= 1000 * rounding)
    return torch.where(equal, mean.nan_to_num(0, 0, 0), torch.where(near & mean.isfinite(), mean, quotient))


def _mean(derivative: Elementwise, r: Tensor, step: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The means of the derivative and of its absolute value over the segment, by ``count`` nodes."""
    mean = size = torch.zeros_like(step)
    for node, weight in _NODES[count]:
        slope = weight * derivative(r + node * step)
        mean, size = mean + slope, size + slope.abs()
    return mean, size


def piecewise(function: Elementwise, derivative: Elementwise, x: Tensor, r: Tensor) -> Tensor:
    """``f[x, r]`` of a function whose difference does not cancel, as one that is linear by pieces; ``f'(x)`` where the sides are equal."""
    return torch.where(x == r, derivative(x), (function(x) - function(r)) / (x - r))


def rescaled(
    context: Context,
    function: Callable[..., Tensor],
    arguments: Sequence[Any],
    differences: Sequence[Difference],
    stand_for: Sequence[Tensor] = (),
) -> Application:
    """The application of an elementwise function of tensors and numbers, by its divided difference in each argument.

    ``differences``: one for each of the ``arguments``; they are computed in float64, whatever the tensors' dtype.
    """
    active = [position for position, argument in enumerate(arguments) if context.carries(argument)]
    operands = [arguments[position] for position in active]
    # Copied, because the model may later write into these constants in place.
    constants = [
        argument.detach().to(torch.float64, copy=True) if isinstance(argument, Tensor) else argument
        for argument in arguments
    ]
    n = len(active)

    def forward(*operands: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        given = list(arguments)
        for position, operand in zip(active, operands, strict=True):
            given[position] = operand
        return function(*given), operands

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        pairs = [[side.double() for side in sides.pair(number)] for number in range(n)]
        found = []
        for number, (position, operand) in enumerate(zip(active, operands, strict=True)):
            total: Any = 0
            for coalition in itertools.product((0, 1), repeat=n - 1):
                given = list(constants)
                others = [other for other in range(n) if other != number]
                for other, side in zip(others, coalition, strict=True):
                    given[active[other]] = pairs[other][side]
                del given[position]
                total = total + differences[position](*pairs[number], *given) / (n * math.comb(n - 1, sum(coalition)))
            found.append(sum_to((grad * total).to(grad.dtype), operand.shape).to(operand.dtype))
        return found

    return Application(operands, forward, multipliers, stand_for=stand_for or operands)
