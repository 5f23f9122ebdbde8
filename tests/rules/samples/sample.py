"""A call of every operation that has a rule or a decomposition, next to the same on units: ``"name"`` or ``"name: variant"``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from reference import rules as slow
from reference.units import values
from torch import Tensor

aten = torch.ops.aten


class Sample(NamedTuple):
    """``op`` takes ``[B, *shape]`` float64, ``slowly`` the units ``[*shape]`` of one pair; their outputs have the same elements.

    ``distance``: of the rule's values from the exact Shapley values of the players, the first dimension of ``shape``; the median over
    random pairs is at most that, and 0 is exact. ``draw``: from standard normal sides to those of the operation. ``worth``: what the
    values add up to, where that is not ``op``.
    """

    shape: tuple[int, ...]
    op: Callable[[Tensor], Any]
    slowly: Callable[[np.ndarray], Any]
    distance: float = 0
    draw: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda x, r: (x, r)
    options: Mapping[str, str] = {}
    worth: Callable[[Tensor], Tensor] | None = None


def positive(*sides: Tensor) -> Any:
    return tuple(side.exp() for side in sides)


def wide(*sides: Tensor) -> Any:
    return tuple(3 * side for side in sides)


def alike(*sides: Tensor) -> Any:
    """Both sides, and whatever is mixed from them, in the same order."""
    shape = sides[0].shape[1:]
    places = torch.arange(shape.numel(), dtype=torch.float64).reshape(shape) * 7 % shape.numel() + 0.5
    return tuple(places + side.tanh() / 3 for side in sides)


def linear(shape: tuple[int, ...], op: Callable[[Tensor], Any]) -> Sample:
    """The multipliers of a linear operation are its matrix: what it makes of the unit vectors."""

    def slowly(a: np.ndarray) -> Any:
        points = torch.cat([torch.zeros(1, a.size), torch.eye(a.size)]).double()
        zero, *columns = outputs(op(points.reshape(-1, *shape)))
        matrix = (torch.stack([*columns]) - zero).T.numpy()
        return slow.combined(*(matrix @ side.ravel() + zero.numpy() for side in values(a)), matrix, a.ravel())

    return Sample(shape, op, slowly)


def outputs(result: Any) -> Tensor:
    """All outputs ``[B, ...]`` of an operation as ``[B, outputs]``."""
    parts = result if isinstance(result, (tuple, list)) else [result]
    real = [torch.view_as_real(part) if part.is_complex() else part for part in parts]
    return torch.cat([part.reshape(len(part), -1) for part in real if part.is_floating_point()], 1)


def by_sample(op: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An operation that has no dimension for the batch, sample by sample."""
    return lambda x: torch.stack([op(one).reshape(-1) for one in x])


def quietly(op: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """An operation that torch warns of: it is deprecated, new or not compiled."""

    def run(x: Tensor) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return op(x)

    return run


def of_two(op: Callable[..., Any], slowly: Callable[..., Any], shape: tuple[int, ...] = (3,), **more: Any) -> Sample:
    """Of two operands of the same shape, which are the players."""
    return Sample((2, *shape), lambda x: op(x[:, 0], x[:, 1]), lambda a: slowly(a[0], a[1]), **more)


def with_both(name: str, *args: Any) -> dict[str, Sample]:
    """A maximum of the elements, by both rules."""
    shape, op, slowly, distance = args
    return {
        name: Sample(shape, op, slowly, distance),
        f"{name}: shapley": Sample(shape, op, lambda a: slowly(a, True), options={"rules": "shapley"}),
    }


def one(unit: Any) -> np.ndarray:
    return np.array([unit], dtype=object)


def of_rows(slowly: Callable[[np.ndarray], np.ndarray], rows: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a row, of all the rows of an array."""
    return lambda a: slow.by_rows(slowly, a.reshape(rows, -1))
