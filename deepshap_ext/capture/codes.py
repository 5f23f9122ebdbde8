"""Integers that are explained: token ids, categories, and columns of codes among numbers.

No gradient flows through integers. So each tensor of explained integers has a twin of the same values in floating point, which carries the
multipliers. What moves the integers about or computes with them is done to the twin as well; a lookup in a constant table is a rule
whose operand is the twin: with ``e`` looked up for the code ``c``, ``m_c = sum_d m_e_d (e_d(x) - e_d(r)) / (c(x) - c(r))``. So a code's
contribution ``m_c (c(x) - c(r))`` is that of all that was looked up for it, and 0 where the codes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from .. import arguments
from ..rules.at_integers import at_integers
from ..rules.linear import STEPS
from ..rules.registry import Application
from .dependence import tensors_in

#: What gives a tensor another dtype, and may make integers of numbers.
CONVERSIONS = frozenset("to type type_as long int short char byte".split())

#: What makes other integers of each integer.
FUNCTIONS = frozenset(
    "remainder fmod floor_divide bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift".split()
)

#: In these, integers are the classes that a loss is taken of; numbers would be probabilities.
LOSSES = frozenset(
    "cross_entropy cross_entropy_loss nll_loss nll_loss2d nll_loss_nd multi_margin_loss multilabel_margin_loss".split()
)


class Codes:
    """The twins of a pass's explained integers."""

    def __init__(self) -> None:
        self._twins: Any = WeakIdKeyDictionary()

    def __bool__(self) -> bool:
        return bool(self._twins)

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, Tensor) and self._of(value) is not None

    def __getitem__(self, codes: Tensor) -> Tensor:
        twin = self._of(codes)
        if twin is None:
            raise KeyError(codes)
        return twin

    def __setitem__(self, codes: Tensor, twin: Tensor) -> None:
        self._twins[codes] = twin

    def twins_for(self, value: Any) -> Any:
        """Nested arguments with twins in place of their integers."""
        return tree_map_only(Tensor, self._twin_or_itself, value)

    def _twin_or_itself(self, tensor: Tensor) -> Tensor:
        if tensor not in self:
            return tensor
        return self[tensor]

    def written(self, tensor: Tensor, dtype: torch.dtype) -> None:
        """Give integers that explained ones are written into a twin; a view's is a view of the twin of the whole."""
        if tensor not in self:
            whole = tensor if tensor._base is None else tensor._base
            self[whole] = whole.to(dtype)

    def _of(self, tensor: Tensor) -> Tensor | None:
        """The twin of a tensor, or the same view of that of the whole."""
        base = tensor._base
        if tensor not in self._twins and base is not None and base in self._twins:
            whole = self._twins[base]
            if whole.stride() != base.stride():
                return None
            offset = whole.storage_offset() + tensor.storage_offset() - base.storage_offset()
            self[tensor] = whole.as_strided(tensor.shape, tensor.stride(), offset)
        return self._twins.get(tensor)

    def taken_apart(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Callable[..., Any] | None:
        """What a call at an index of explained integers is made of; None for any other call."""
        body = at_integers(name)
        at_index = name == "embedding_bag" or (body and (args[2] if len(args) > 2 else kwargs["index"]) in self)
        return body if at_index else None

    def looked_up(self, name: str, function: Callable[..., Any], args: Any, kwargs: Any) -> Application | None:
        """The application of a lookup of explained integers in a table; None for any other call."""
        given = [*args, *kwargs.values()]
        coded = [tensor for tensor in tensors_in(given) if tensor in self]
        if any(tensor.requires_grad for tensor in tensors_in(given)):
            return None
        if len(coded) != 1 or (index := _index(name, given, coded[0])) is None:
            return None
        return _lookup(lambda: function(*args, **kwargs), self[coded[0]], index)


def keeps_codes(name: str) -> bool:
    """Whether what the operation makes of explained integers is explained too; all else decides by them."""
    if name in LOSSES:
        return False
    return name not in STEPS or name in CONVERSIONS or name in FUNCTIONS or name == "one_hot"


#: An operation that explained integers only decide in, as an index, a mask or a target.
DECIDED = object()


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


@dataclass(frozen=True)
class _Index:
    """The index of a lookup; ``shape``, to which it is broadcast, are the result's dimensions from ``first``."""

    codes: Tensor
    first: int
    shape: tuple[int, ...]


def _index(name: str, given: Sequence[Any], codes: Tensor) -> _Index | None:
    """Where a call looks these codes up; None for a call that does not."""
    at, first = None, 0
    if name == "embedding":
        # torch.nn.functional has the indices first, torch the table.
        at = 0 if given[0] is codes else 1
    elif name == "one_hot":
        at = 0
    elif name == "index_select":
        at, first = 2, given[1] % max(given[0].dim(), 1)
    elif name in ("gather", "take"):
        at = -1
    elif name == "getitem":
        return _subscript(given[0], given[1] if isinstance(given[1], tuple) else (given[1],), codes)
    return None if at is None or given[at] is not codes else _Index(codes, first, codes.shape)


def _subscript(table: Tensor, items: tuple[Any, ...], codes: Tensor) -> _Index | None:
    """Where ``table[items]`` looks these codes up; None if they are not among the items, or others are masks or lists."""
    tensors = [item for item in items if isinstance(item, Tensor)]
    numbers = [item for item in items if arguments.is_integer(item)]
    places = [item for item in items if item is None or item is Ellipsis or isinstance(item, slice)]
    if len(tensors) + len(numbers) + len(places) < len(items) or not all(map(is_integer, tensors)):
        return None
    if all(tensor is not codes for tensor in tensors):
        return None
    # Torch selects by a tensor without dimensions as by a number. The others' dimensions are where they stand, or first if apart.
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
    return _Index(codes, first if together else 0, torch.broadcast_shapes(*(tensor.shape for tensor in tensors)))


def _lookup(look_up: Callable[[], Tensor], twin: Tensor, index: _Index) -> Application:
    """The application of a lookup."""

    def forward(c: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        found = look_up()
        found = found if found.is_floating_point() else found.to(c.dtype)
        return found, [found, c]

    def multipliers(grad: Tensor, sides: Any) -> Sequence[Tensor]:
        (e_x, e_r), (c_x, c_r) = sides.pair(0), sides.pair(1)
        share = (grad * (e_x - e_r)).to(twin.dtype)
        own = range(index.first, index.first + len(index.shape))
        others = tuple(dim for dim in range(share.dim()) if dim not in own)
        return [(share.sum(others) if others else share).sum_to_size(twin.shape) * _inverse(c_x - c_r)]

    return Application([twin], forward, multipliers, stand_for=[index.codes])


def _inverse(difference: Tensor) -> Tensor:
    """One over a difference, 0 where there is none."""
    return torch.where(difference == 0, 0, 1 / torch.where(difference == 0, 1, difference))
