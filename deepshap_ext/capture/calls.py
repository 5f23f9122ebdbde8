"""What a call does, by its arguments and its results."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from ..rules.attention import HELPERS
from ..rules.linear import DIVISIONS, FACTORS, LINEAR, STEPS
from .dependence import Dependence, plain, tensors_in
from .names import Operation
from .writes import declared, only_makes

#: What gives Python code, or numpy, the values of a tensor.
_VALUE_READERS = frozenset("item tolist numpy __array__ __bool__ __float__ __int__ __complex__ __index__".split())


def reads_value(called: Operation) -> bool:
    """Whether the call takes a tensor's value out of torch."""
    return called.spelling in _VALUE_READERS


def is_value(function: Any, result: Any, made: Sequence[Tensor]) -> bool:
    """Whether an operation gave Python code a value and no tensor."""
    return not made and result is not None and not isinstance(function, types.MethodWrapperType)


def is_off(called: Operation, args: Any, kwargs: Any) -> bool:
    """Whether a dropout (or rrelu) was called as in eval mode."""
    position = {"rrelu": 3, "rrelu_with_noise": 4}.get(called.name, 2)
    name = "train" if "train" in kwargs else "training"
    if "dropout" not in called.name and "rrelu" not in called.name:
        return False
    training = kwargs.get(name, args[position] if len(args) > position else "dropout" in called.name)
    return not training or ("dropout" in called.name and kwargs.get("p", args[1] if len(args) > 1 else 0.5) == 0)


def stable_sort(function: Any, args: Any, kwargs: Any) -> Any:
    """The result of a sort that leaves equal elements in their order; torch's own shuffles more than 16 of them.

    A model that sorts the samples of a batch by their lengths would permute samples of one length, and only in a large batch.
    """
    named = dict(zip(("dim", "descending"), args[1:], strict=False))
    return getattr(function, "overloadpacket", function)(*args[:1], **{**named, **kwargs, "stable": True})


def needs_rule(called: Operation, args: Any, kwargs: Any, dependence: Dependence) -> bool:
    """Whether an operation on tensors that carry multipliers is neither linear in them, as it is called, nor a step."""
    if called.name in LINEAR:
        return _is_bilinear(called, args, kwargs, dependence)
    return called.name not in STEPS


def _is_bilinear(called: Operation, args: Any, kwargs: Any, dependence: Dependence) -> bool:
    """Whether a product was called with more than one factor, or a division with a divisor, that carries multipliers; or with a sparse
    factor, which autograd's backward for batches does not take."""
    if called.name == "einsum":
        values = tensors_in(args)
    else:
        factors = FACTORS.get(called.name)
        if factors is None:
            return False
        values = [args[at] if at < len(args) else kwargs.get(keyword) for at, keyword in factors.items()]
    for value in values:
        if isinstance(value, Tensor) and value.layout is not torch.strided:
            return True
    return sum(map(dependence.carries, values)) > 1 or (called.name in DIVISIONS and dependence.carries(values[1]))


def nodes_of(made: Sequence[Tensor], written: Sequence[Tensor]) -> list[Node]:
    """The places in the autograd graph of what was made; a write into a view has one in the history of its base."""
    bases = [tensor._base for tensor in map(plain, written) if tensor._base is not None]
    found = [tensor.grad_fn for tensor in (*map(plain, made), *bases)]
    return [node for node in found if node is not None]


def written_by(called: Operation, function: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that the call writes into."""
    if only_makes(called, function, kwargs):
        return []
    first = next(iter((*args, *kwargs.values())), None) if called.in_place or kwargs.get("inplace") else None
    return [*tensors_in(first), *tensors_in(kwargs.get("out")), *declared(function, args, kwargs)]


@cache
def body_of(function: Any) -> Callable[..., Any] | None:
    """The body of one of torch's composite Python functions, without its own check for overrides; None for anything else.

    Calling the function itself under the mode would only come back to the mode.
    """
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if not isinstance(function, types.FunctionType) or not function.__module__.startswith("torch."):
        return None
    return without_overrides(function, HELPERS)


def without_overrides(function: types.FunctionType, helpers: Mapping[str, Any]) -> types.FunctionType:
    """A copy of a function whose checks for overrides find none; ``helpers`` stand in for globals of these names."""
    blind = {name: (lambda *_: False) for name in function.__globals__ if name.startswith("has_torch_function")}
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **blind, **helpers},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
