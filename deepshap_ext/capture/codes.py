"""Integers that are explained: token ids, categories, and columns of codes among numbers.

No gradient flows through integers. So each tensor of explained integers has a twin of the same values in floating point, which carries the
multipliers. What moves the integers about or computes with them is done to the twin as well; a function of them, such as a lookup in a
constant table, is a rule whose operands are their twins (:mod:`deepshap_ext.rules.lookup`). So a code's contribution is that of all that
was looked up for it, and 0 where the codes are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from ..rules.at_integers import at_integers
from ..rules.linear import FACTORS, STEPS
from ..rules.lookup import ELEMENTWISE, TWIN, codes_of, is_integer, lookup
from ..rules.registry import Application
from .dependence import tensors_in

#: What gives a tensor another dtype, and may make integers of numbers.
CONVERSIONS = frozenset("to type type_as int long short char byte as_tensor asarray".split())

#: What makes whole numbers of numbers, as a model does before it takes them for codes.
ROUNDINGS = frozenset("round floor ceil trunc".split())

#: In these, integers are the classes that a loss is taken of; numbers would be probabilities.
LOSSES = frozenset(
    "cross_entropy cross_entropy_loss nll_loss nll_loss2d nll_loss_nd multi_margin_loss multilabel_margin_loss".split()
)

#: Operations that write tensors into their first argument, which must have the dtype of these: numbers, where they are twins.
_INTO_FIRST = frozenset(
    "scatter scatter_add index_add index_copy index_put masked_scatter select_scatter slice_scatter diagonal_scatter".split()
)

#: In place of a result: integers that are explained only decide in the operation, as an index, a mask or a target.
DECIDED = object()


class Codes:
    """The twins of a pass's explained integers."""

    def __init__(self) -> None:
        self._twins: Any = WeakIdKeyDictionary()
        #: The places in the autograd graph of inputs that are integers.
        self.inputs: list[GradientEdge] = []

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

    def arguments(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """A call's arguments with twins in place of their integers, and with numbers where torch takes these with numbers only."""
        named = {key: value for key, value in kwargs.items() if key != "dtype"}
        twins, named = tree_map_only(Tensor, self._twin_or_itself, (args, named))
        if name in FACTORS:
            return tree_map_only(Tensor, _number, (twins, named))
        if name in _INTO_FIRST:
            return (_number(twins[0]), *twins[1:]), named
        return twins, named

    def _twin_or_itself(self, tensor: Tensor) -> Tensor:
        if tensor not in self:
            return tensor
        return self[tensor]

    def written(self, tensor: Tensor) -> None:
        """Give integers that explained ones are written into a twin; a view's is a view of the twin of the whole."""
        if tensor not in self:
            whole = tensor if tensor._base is None else tensor._base
            self[whole] = whole.to(TWIN)

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

    def looked_up(
        self, name: str, function: Callable[..., Any], args: Any, kwargs: Any, keep: Callable[[Any], Any]
    ) -> tuple[Tensor, Application] | None:
        """The result and the application of a function of explained integers and constants, as a lookup of them in a table is; None for any
        other call. ``keep`` gives constants as the pair pass may read them."""
        if any(tensor.requires_grad for tensor in tensors_in((args, kwargs))):
            return None
        of = codes_of(name, args, kwargs, self.__contains__)
        if of is None:
            return None
        number = {id(code): place for place, code in enumerate(of.codes)}
        template = keep(
            tree_map_only(Tensor, lambda t: _Place(number[id(t)]) if id(t) in number else t, (args, kwargs))
        )

        def of_others(codes: Sequence[Tensor]) -> Tensor:
            given, named = tree_map_only(_Place, lambda place: codes[place.number], template)
            return function(*given, **named)

        result = function(*args, **kwargs)
        return result, lookup(of, [self[code] for code in of.codes], result, of_others)


@dataclass(frozen=True)
class _Place:
    """Stands for one of a function's codes among its arguments."""

    number: int


def _number(tensor: Tensor) -> Tensor:
    """Integers as numbers of the twins' dtype; numbers as they are."""
    return tensor.to(TWIN) if is_integer(tensor) else tensor


def keeps_codes(name: str) -> bool:
    """Whether what the operation makes of explained integers is explained too; all else decides by them."""
    if name in LOSSES:
        return False
    return name not in STEPS or name in CONVERSIONS or name in ELEMENTWISE or name == "one_hot"
