"""Functions of explained integers (codes), such as a lookup in a table: their multipliers, and which calls are such functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import arguments
from ..arrays import wide
from .registry import Application

#: The dtype of what carries the multipliers of integers: exact up to 2**53.
TWIN = torch.float64

#: Operations that compute integers from integers, element by element.
ELEMENTWISE = frozenset(
    "remainder fmod floor_divide bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift".split()
)

#: Where each lookup in its first argument has its index, by position and keyword.
_INDEX = {
    "index_select": (2, "index"),
    "gather": (2, "index"),
    "take": (1, "index"),
    "take_along_dim": (1, "indices"),
}


@dataclass(frozen=True)
class Operands:
    """The explained integers that a call is a function of; broadcast together, their shape is that of the result in dimensions ``dims``."""

    codes: Sequence[Tensor]
    dims: range


def codes_of(
    name: str, args: Sequence[Any], kwargs: dict[str, Any], explained: Callable[[Any], bool]
) -> Operands | None:
    """The explained integers that a call is a function of, all else in it being constant; None for a call that is no such function."""
    given = [*args, *kwargs.values()]
    if name in ELEMENTWISE or kwargs.get("rounding_mode"):
        operands = [one for one in given if isinstance(one, Tensor)]
        return _together([one for one in operands if explained(one)], 0, operands)
    if name in ("embedding", "one_hot"):
        # torch.nn.functional.embedding has the indices first, torch.embedding the table.
        codes = [one for one in given if explained(one)]
        return _together(codes, 0, codes)
    if not given or explained(given[0]):
        return None
    if name == "getitem":
        return _subscript(given[0], given[1], explained)
    if name not in _INDEX:
        return None
    at, keyword = _INDEX[name]
    index: Any = args[at] if at < len(args) else kwargs.get(keyword)
    if not explained(index):
        return None
    if name == "take_along_dim":
        # Index and table are broadcast together; without a dimension both are flattened.
        dim = args[2] if len(args) > 2 else kwargs.get("dim")
        return None if dim is None else _together([index], 0, [index])
    dim = (args[1] if len(args) > 1 else kwargs["dim"]) if name == "index_select" else 0
    return _together([index], dim % max(given[0].dim(), 1), [index])


def _together(codes: Sequence[Tensor], first: int, index: Sequence[Tensor]) -> Operands | None:
    """The operands ``codes``, which are part of an ``index`` of several tensors; its dimensions are the result's from ``first`` on."""
    if not codes or not all(map(is_integer, codes)):
        # Masks of truth values are decisions, not look-ups.
        return None
    dims = len(torch.broadcast_shapes(*(tensor.shape for tensor in index)))
    return Operands([*{id(one): one for one in codes}.values()], range(first, first + dims))


def _subscript(table: Tensor, subscript: Any, explained: Callable[[Any], bool]) -> Operands | None:
    """The operands of ``table[subscript]``; None if no item is an explained integer, or another item is a mask or a list."""
    items = subscript if isinstance(subscript, tuple) else (subscript,)
    if isinstance(subscript, list):
        # aten's form of a subscript, where None leaves a dimension as it is.
        items = tuple(slice(None) if item is None else item for item in subscript)
    tensors = [item for item in items if isinstance(item, Tensor)]
    numbers = [item for item in items if arguments.is_integer(item)]
    places = [item for item in items if item is None or item is Ellipsis or isinstance(item, slice)]
    if len(tensors) + len(numbers) + len(places) < len(items) or not all(map(is_integer, tensors)):
        return None
    codes = [tensor for tensor in tensors if explained(tensor)]
    # A tensor without dimensions selects as a number does. The broadcast dimensions of the others come where these stand in the subscript,
    # or first in the result where they do not stand side by side.
    whole = table.dim() - sum(item is not None and item is not Ellipsis for item in items)
    is_index: list[bool] = []
    for item in items:
        if isinstance(item, Tensor):
            is_index += [True] * bool(item.dim())
        elif item is Ellipsis:
            is_index += [False] * whole
        elif not arguments.is_integer(item):
            is_index.append(False)
    first = is_index.index(True) if any(is_index) else 0
    together = all(is_index[first : first + sum(is_index)])
    return _together(codes, first if together else 0, tensors)


def is_integer(value: Any) -> bool:
    """Whether it is a tensor of integers, which is no mask."""
    if not isinstance(value, Tensor):
        return False
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def lookup(
    of: Operands, twins: Sequence[Tensor], result: Tensor, function: Callable[[Sequence[Tensor]], Tensor]
) -> Application:
    """The application of a function of explained integers: ``result`` for the input's codes, ``function(codes)`` for others.

    The difference between the function's values ``e`` for a code and for the baseline's is that code's contribution:
    ``m_c = sum_d m_e_d (e_d(x) - e_d(r)) / (c(x) - c(r))``. Several codes share it by their exact Shapley values. ``twins`` carry the
    multipliers of the codes, which are integers and have no gradient.
    """
    number = len(of.codes)

    def forward(*operands: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        found = result if result.is_floating_point() else result.to(TWIN)
        return found, [*operands, *([found] if number == 1 else of.codes)]

    def multipliers(grad: Tensor, sides: Any) -> Sequence[Tensor]:
        def by_code(found: Tensor) -> Tensor:
            """The contribution to the output of ``found``, a change of the result: one number for each place of the codes."""
            share = wide(grad) * found
            others = tuple(dim for dim in range(share.dim()) if dim not in of.dims)
            return share.sum(others, dtype=TWIN) if others else share.to(TWIN)

        kept = [sides.pair(position) for position in range(number, 2 * number)]
        if number == 1:
            ((e_x, e_r),) = kept
            shares = [by_code(wide(e_x) - wide(e_r))]
        else:

            def worth(ours: frozenset[int]) -> Tensor:
                given = [x if place in ours else r.expand_as(x) for place, (x, r) in enumerate(kept)]
                return by_code(function(given).to(TWIN))

            shares = _shapley_values(number, worth)
        found = []
        for position, (share, twin) in enumerate(zip(shares, twins, strict=True)):
            c_x, c_r = sides.pair(position)
            found.append(share.sum_to_size(twin.shape) * _inverse(c_x - c_r))
        return found

    return Application(twins, forward, multipliers, stand_for=of.codes)


def _shapley_values(players: int, worth: Callable[[frozenset[int]], Tensor]) -> list[Tensor]:
    """The exact Shapley value of each player, from the ``worth`` of all coalitions."""
    everyone = range(players)
    coalitions = [frozenset(some) for size in range(players + 1) for some in itertools.combinations(everyone, size)]
    worths = {coalition: worth(coalition) for coalition in coalitions}
    values = []
    for player in everyone:
        without = [coalition for coalition in coalitions if player not in coalition]
        gains = [
            (worths[some | {player}] - worths[some]) / (players * math.comb(players - 1, len(some))) for some in without
        ]
        values.append(torch.stack(gains).sum(0))
    return values


def converted(numbers: Tensor, codes: Tensor) -> Application:
    """The application of a conversion of ``numbers`` to integers ``codes``: the difference of the integers over that of the numbers."""

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        twin = codes.to(TWIN)
        return twin, [twin, x]

    def multipliers(grad: Tensor, sides: Any) -> Sequence[Tensor]:
        (c_x, c_r), (x, r) = sides.pair(0), sides.pair(1)
        return [(grad * (c_x - c_r) * _inverse(x - r)).to(numbers.dtype)]

    return Application([numbers], forward, multipliers)


def _inverse(difference: Tensor) -> Tensor:
    """One over a difference, 0 where there is none."""
    return torch.where(difference == 0, 0, 1 / torch.where(difference == 0, 1, difference))
