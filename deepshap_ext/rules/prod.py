"""Products of all numbers along a dimension, by the exact Shapley values of their factors.

These are the mean of the product's derivative along the segment between the two sides (Owen, Management Science 18, 1972). That is a
polynomial of a degree below the number of factors, which half as many Gauss-Legendre nodes integrate exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .registry import Application, Context, rule


@functools.cache
def nodes(factors: int) -> list[tuple[float, float]]:
    """Places in [0, 1] and their weights, for the mean of the derivative of a product of so many factors."""
    places, weights = np.polynomial.legendre.leggauss(max(1, (factors + 1) // 2))
    return [(float(place + 1) / 2, float(weight) / 2) for place, weight in zip(places, weights, strict=True)]


@rule("prod")
def _prod(
    _: Context, input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Application:
    factors = input if dtype is None else input.to(dtype)
    last = factors.reshape(-1) if dim is None or input.dim() == 0 else factors.movedim(dim, -1)

    def product(x: Tensor) -> Tensor:
        found = x.prod(-1)
        return found.unsqueeze(dim) if keepdim and dim is not None else found

    def derivative(grad: Tensor, z: Tensor) -> Tensor:
        before, after = _before(z), _before(z.flip(-1)).flip(-1)
        return grad.reshape(z.shape[:-1]).unsqueeze(-1) * before * after

    return _mean_derivative(product, derivative, last, input)


@rule("cumprod")
def _cumprod(_: Context, input: Tensor, dim: int, *, dtype: Any = None) -> Application:
    factors = input if dtype is None else input.to(dtype)
    last = factors.reshape(-1) if input.dim() == 0 else factors.movedim(dim, -1)

    def products(x: Tensor) -> Tensor:
        return x.cumprod(-1).movedim(-1, dim).reshape(input.shape)

    def derivative(grad: Tensor, z: Tensor) -> Tensor:
        grad = grad.reshape(z.shape) if input.dim() == 0 else grad.movedim(dim, -1)
        return _before(z) * _weighted_sums_after(z, grad)

    return _mean_derivative(products, derivative, last, input)


def _mean_derivative(
    function: Callable[[Tensor], Tensor], derivative: Callable[[Tensor, Tensor], Tensor], factors: Tensor, input: Tensor
) -> Application:
    """The application of a function of ``factors [..., n]``; ``derivative(grad, z)``: its vector-Jacobian product at ``z``."""

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return function(x), [x]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        x, r = sides.pair()
        parts = (weight * derivative(grad, r + place * (x - r)) for place, weight in nodes(factors.shape[-1]))
        return [functools.reduce(torch.add, parts)]

    return Application([factors], forward, multipliers, stand_for=[input])


def _before(z: Tensor) -> Tensor:
    """``[..., n]``: the product of the factors before each."""
    return torch.cat([torch.ones_like(z[..., :1]), z[..., :-1]], -1).cumprod(-1)


def _weighted_sums_after(z: Tensor, grad: Tensor) -> Tensor:
    """``s_i = sum_(k >= i) grad_k z_(i+1) ... z_k``: for each factor what the products from it on have to do with the factors behind it.

    ``s_i = grad_i + z_(i+1) s_(i+1)``, in as many steps as the number of factors has binary digits: each doubles the terms of the sums.
    """
    sums, products, span = grad, _shifted(z, 1), 1
    while span < z.shape[-1]:
        sums = sums + products * _shifted(sums, span)
        products = products * _shifted(products, span)
        span *= 2
    return sums


def _shifted(tensor: Tensor, by: int) -> Tensor:
    """The elements that stand ``by`` places behind each, and 0 where there are none."""
    return F.pad(tensor[..., by:], (0, by))
