"""DeepLIFT of one pair, number by number, in float64: what the operators of numbers that depend on the input do to multipliers.

Slow and plain; nothing here comes from the package under test. Arrays of units are numpy's of objects, whose sums, products and
indexing call the operators below: a network written in numpy with units as its input explains itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .divided_differences import ORACLES, divided_difference


class Unit:
    """A number inside a network: its value for the input, ``x``, for the baseline, ``r``, and its multipliers ``m``, one for each element
    of the input. Completeness: ``m @ (input - baseline) = x - r``."""

    __slots__ = ("m", "r", "x")

    def __init__(self, x: float, r: float, m: np.ndarray) -> None:
        self.x, self.r, self.m = float(x), float(r), m

    @property
    def mean(self) -> float:
        return (self.x + self.r) / 2

    @property
    def difference(self) -> float:
        return self.x - self.r

    def __add__(self, other: Any) -> Unit:
        if isinstance(other, Unit):
            return Unit(self.x + other.x, self.r + other.r, self.m + other.m)
        return Unit(self.x + other, self.r + other, self.m)

    def __mul__(self, other: Any) -> Unit:
        if isinstance(other, Unit):  # both factors' Shapley values: arXiv 1705.07874, section 2.2
            return Unit(self.x * other.x, self.r * other.r, other.mean * self.m + self.mean * other.m)
        return Unit(self.x * other, self.r * other, self.m * other)

    def __truediv__(self, other: Any) -> Unit:
        return _quotient(self, other) if isinstance(other, Unit) else self * (1 / other)

    def __rtruediv__(self, other: float) -> Unit:
        return _quotient(Unit(other, other, np.zeros_like(self.m)), self)

    def __pow__(self, exponent: float) -> Unit:
        return elementwise("square" if exponent == 2 else "pow", self, *[exponent] * (exponent != 2))

    def __neg__(self) -> Unit:
        return self * -1

    def __sub__(self, other: Any) -> Unit:
        return self + -other

    def __rsub__(self, other: Any) -> Unit:
        return -self + other

    def sqrt(self) -> Unit:  # np.sqrt of an array of objects calls their methods
        return elementwise("sqrt", self)

    __radd__, __rmul__ = __add__, __mul__


def _quotient(a: Unit, b: Unit) -> Unit:
    """``z = a / b`` from ``a = z b`` at the midpoints; where b changes its sign, the product of a and 1 / b."""
    z = Unit(a.x / b.x, a.r / b.r, a.m)
    if (b.x > 0) == (b.r > 0):
        z.m = (a.m - z.mean * b.m) / b.mean
    else:
        z.m = a.m * (1 / b.x + 1 / b.r) / 2 - b.m * a.mean / (b.x * b.r)
    return z


def units(x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """An input and its baseline: each element's multiplier is 1 for itself."""
    own = np.eye(x.size)
    elements = np.empty(x.size, dtype=object)
    elements[:] = [Unit(*sides) for sides in zip(x.flat, r.flat, own, strict=True)]
    return elements.reshape(x.shape)


def elementwise(function: str, a: Any, *parameters: float) -> Any:
    """``f(a)``: the rescale rule, DeepLIFT (arXiv 1704.02685) section 3.5.2. ``a``: a unit or an array of them."""
    if isinstance(a, np.ndarray):
        return np.vectorize(lambda unit: elementwise(function, unit, *parameters), otypes=[object])(a)
    oracle = ORACLES[function]
    constants = oracle.rounded(parameters, np.float64)
    slope, _ = divided_difference(function, a.x, a.r, parameters, np.float64)
    return Unit(oracle.value(a.x, *constants), oracle.value(a.r, *constants), float(slope) * a.m)


def values(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of an array of units, each ``[*a.shape]``."""
    x, r = np.vectorize(lambda unit: (unit.x, unit.r), otypes=[float, float])(a)
    return x, r


def multipliers(a: np.ndarray) -> np.ndarray:
    """``[*a.shape, elements of the input]``."""
    return np.stack([unit.m for unit in a.flat]).reshape(*a.shape, -1)
