"""A call of a function that is explained as one operation, whatever it does inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from ..capture.dependence import tensors_in
from ..capture.detach import AsIdentity
from ..errors import UnsupportedOperationError


class Whole:
    """One call of a function, to be repeated with other tensors in the places of its ``operands``.

    Every run of the function, in the forward pass and in the pair pass, goes through this class.
    """

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any, operands: Sequence[Tensor]) -> None:
        self.operands = operands
        self._function, self._args, self._kwargs = function, args, kwargs

    def __call__(self, values: Sequence[Tensor]) -> Any:
        given = {id(operand): value for operand, value in zip(self.operands, values, strict=True)}
        args, kwargs = tree_map(lambda item: given.get(id(item), item), (self._args, self._kwargs))
        with AsIdentity():
            return self._function(*args, **kwargs)

    def on_copies(self, values: Sequence[Tensor], explained: str, may_write: bool) -> Any:
        """The function's result for copies of the ``values``; an error where it writes into them and must not.

        ``explained``: how the function is explained, with which the message begins.
        """
        given = [value.clone() for value in values]
        result = self(given)
        if not may_write and any(copy._version for copy in given):
            raise UnsupportedOperationError(
                f"{explained} and writes into its argument, which the model may read elsewhere: call it with a clone"
            )
        return result

    def constants(self) -> list[Tensor]:
        """The tensors in its arguments besides the operands."""
        tensors = tensors_in((self._args, self._kwargs))
        return [tensor for tensor in tensors if not any(tensor is operand for operand in self.operands)]
