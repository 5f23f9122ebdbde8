"""Integers that are explained: token ids, categories, and columns of codes among numbers.

No gradient flows through integers. So each tensor of explained integers has a twin of the same values in floating point, which carries the
multipliers. What moves the integers about or computes with them is done to the twin as well; a lookup in a constant table is a rule
whose operand is the twin: with ``e`` looked up for the code ``c``, ``m_c = sum_d m_e_d (e_d(x) - e_d(r)) / (c(x) - c(r))``. So a code's
contribution ``m_c (c(x) - c(r))`` is that of all that was looked up for it, and 0 where the codes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from ..rules.linear import STEPS
from ..rules.registry import Application
from .dependence import tensors_in

#: What gives a tensor another dtype, and may make integers of numbers.
CONVERSIONS = frozenset("to type type_as long int short char byte".split())

#: What makes other integers of each integer.
FUNCTIONS = frozenset(
    "remainder fmod floor_divide bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift".split()
)


class Codes:
    """The twins of a pass's explained integers."""

    def __init__(self) -> None:
        self._twins: Any = WeakIdKeyDictionary()

    def __bool__(self) -> bool:
        return bool(self._twins)

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value in self._twins

    def __getitem__(self, codes: Tensor) -> Tensor:
        return self._twins[codes]

    def __setitem__(self, codes: Tensor, twin: Tensor) -> None:
        self._twins[codes] = twin

    def twins_for(self, value: Any) -> Any:
        """Nested arguments with twins in place of their integers."""
        return tree_map_only(Tensor, lambda tensor: self._twins.get(tensor, tensor), value)

    def looked_up(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Application | None:
        """The application of a lookup of explained integers in a table; None for any other call."""
        given = [*args, *kwargs.values()]
        coded = [tensor for tensor in tensors_in(given) if tensor in self]
        found = _index(name, given)
        if len(coded) != 1 or found is None or found[0] is not coded[0]:
            return None
        codes, first = found
        return _lookup(lambda: function(*args, **kwargs), codes, self[codes], first)


def keeps_codes(name: str) -> bool:
    """Whether what the operation makes of explained integers is explained too; all else decides by them."""
    return name not in STEPS or name in CONVERSIONS or name in FUNCTIONS or name == "one_hot"


def is_integer(value: Any) -> bool:
    """Whether it is a tensor of integers, which is no mask."""
    if not isinstance(value, Tensor):
        return False
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def converted(numbers: Tensor, codes: Tensor) -> Application:
    """The application of a conversion of numbers to integers, element by element: the difference of these over that of the numbers."""

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        twin = codes.to(x.dtype if x.element_size() >= 4 else torch.float32)
        return twin, [twin, x]

    def multipliers(grad: Tensor, sides: Any) -> Sequence[Tensor]:
        (c_x, c_r), (x, r) = sides.pair(0), sides.pair(1)
        return [(grad * (c_x - c_r) * _inverse(x - r)).to(numbers.dtype)]

    return Application([numbers], forward, multipliers)


def _index(name: str, given: Sequence[Any]) -> tuple[Any, int] | None:
    """The index tensor of a call that looks something up, and the first dimension of the result that is the index's."""
    if name == "embedding" and len(given) > 1:
        # torch.nn.functional has the indices first, torch the table.
        return next(((value, 0) for value in given[:2] if is_integer(value)), None)
    if name == "one_hot":
        return given[0], 0
    if name == "getitem":
        index = given[1]
        return (index[0] if isinstance(index, tuple) and len(index) == 1 else index), 0
    if name == "index_select":
        return given[2], given[1] % max(given[0].dim(), 1)
    if name in ("gather", "take"):
        return given[-1], 0
    return None


def _lookup(look_up: Callable[[], Tensor], codes: Tensor, twin: Tensor, first: int) -> Application:
    """The application of a lookup; dimensions ``first .. first + codes.dim()`` of what it gives are those of the codes."""

    def forward(c: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        found = look_up()
        found = found if found.is_floating_point() else found.to(c.dtype)
        return found, [found, c]

    def multipliers(grad: Tensor, sides: Any) -> Sequence[Tensor]:
        (e_x, e_r), (c_x, c_r) = sides.pair(0), sides.pair(1)
        share = (grad * (e_x - e_r)).to(twin.dtype)
        own = range(first, first + twin.dim())
        others = tuple(dim for dim in range(share.dim()) if dim not in own)
        return [(share.sum(others) if others else share).reshape(twin.shape) * _inverse(c_x - c_r)]

    return Application([twin], forward, multipliers, stand_for=[codes])


def _inverse(difference: Tensor) -> Tensor:
    """One over a difference, 0 where there is none."""
    return torch.where(difference == 0, 0, 1 / torch.where(difference == 0, 1, difference))
