"""The argument ``output``: which tensor of all that a model returns is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .arguments import is_integer, shown
from .errors import ExplanationError
from .memory import is_out_of_memory

Select = Callable[[Any], Tensor]


def selector(output: Any) -> Select:
    """The function from a model's output to the explained tensor ``[samples, ...]``.

    ``output``: None for the obvious one (a tensor, ``logits``, or the only tensor there is), a key, a position, or a function.
    """
    if output is None:
        return _obvious
    if isinstance(output, str) or is_integer(output):
        return _Item(output)
    if callable(output):
        return _Called(output)
    raise TypeError(f"output must be None, a key, a position or a function of the model's output, got {shown(output)}")


@dataclass(frozen=True)
class _Item:
    """Takes an item by key or position, or an attribute by name."""

    key: Any

    def __call__(self, result: Any) -> Tensor:
        try:
            if isinstance(self.key, str) and not isinstance(result, Mapping):
                return getattr(result, self.key)
            return result[self.key]
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # ValueError is what a tensor raises for a position that does not fit into 64 bits.
            raise ValueError(f"output={self.key!r} is not in what the model returns, {_described(result)}") from error


@dataclass(frozen=True, eq=False)
class _Called:
    """Calls the user's function; its errors, too, say what the model returned."""

    function: Select

    def __eq__(self, other: object) -> bool:
        # By identity: not every callable can be hashed.
        return isinstance(other, _Called) and other.function is self.function

    def __hash__(self) -> int:
        return id(self.function)

    def __call__(self, result: Any) -> Tensor:
        try:
            return self.function(result)
        except Exception as error:
            if isinstance(error, ExplanationError) or is_out_of_memory(error):
                raise
            raise ValueError(
                f"output={self.function!r} must take what the model returns, {_described(result)}, and raised "
                f"{type(error).__name__}: {error}"
            ) from error


def _obvious(result: Any) -> Tensor:
    """The tensor to explain where the user has named none; an error where there are several."""
    if isinstance(result, Tensor):
        return result
    if isinstance(result, Mapping):
        if isinstance(result.get("logits"), Tensor):
            return result["logits"]
        values = list(result.values())
    elif isinstance(result, (list, tuple)):
        values = list(result)
    else:
        values = []
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(tensors) == 1:
        return tensors[0]
    raise ValueError(
        f"the model returns {_described(result)}: say what to explain with output=, a key, a position or a function"
    )


def _described(result: Any) -> str:
    """What a message says of a model's result: its type, and what could be named in it."""
    kind = type(result).__name__
    if isinstance(result, Mapping):
        return f"{kind} with the keys {list(result)}"
    if isinstance(result, (list, tuple)):
        names = f" named {list(result._fields)}" if hasattr(result, "_fields") else ""
        return f"{kind} of {[type(value).__name__ for value in result]} at positions 0 to {len(result) - 1}{names}"
    if isinstance(result, Tensor):
        return f"a tensor of shape {list(result.shape)}"
    attributes = [name for name, value in getattr(result, "__dict__", {}).items() if isinstance(value, Tensor)]
    return f"{kind} with the tensors {attributes}" if attributes else kind
