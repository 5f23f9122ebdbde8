"""Whether results for several inputs and layers are tensors, tuples of them, or tuples of tuples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Structure:
    """How tensors are put together for the user.

    ``listed``: X was a list, so that tensors come in a tuple even for one input. ``several``: there is a list of layers, so that those of
    each layer are an item of a tuple.
    """

    listed: bool = False
    several: bool = False

    def of(self, tensors: Sequence[Any], layers: Sequence[slice]) -> Any:
        """``tensors``, one an explained tensor, as the user gets them; ``layers``: which of them are each layer's."""
        found = []
        for layer in layers:
            each = tensors[layer]
            found.append(each[0] if len(each) == 1 and not self.listed else tuple(each))
        return tuple(found) if self.several else found[0]

    def flat(self, value: Any, layers: Sequence[slice]) -> list[Tensor] | None:
        """The reverse of :meth:`of`: the tensors in ``value``; None if it is not put together like that."""
        each_layer = value if self.several else (value,)
        if not isinstance(each_layer, (list, tuple)) or len(each_layer) != len(layers):
            return None
        tensors: list[Tensor] = []
        for layer, one in zip(layers, each_layer, strict=True):
            each = one if isinstance(one, (list, tuple)) else (one,)
            if len(each) != layer.stop - layer.start or not all(isinstance(tensor, Tensor) for tensor in each):
                return None
            tensors += each
        return tensors
