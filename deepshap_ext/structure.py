"""How the tensors of a result are put together for the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Structure:
    """``listed``: for a list of inputs, whose tensors come in a tuple however many there are; ``several``: for a list of layers."""

    listed: bool = False
    several: bool = False

    def of(self, tensors: Sequence[Any], layers: Sequence[slice]) -> Any:
        """One of each explained tensor as the user gets them; ``layers``: which are each layer's."""
        found = []
        for layer in layers:
            each = tensors[layer]
            found.append(each[0] if len(each) == 1 and not self.listed else tuple(each))
        return tuple(found) if self.several else found[0]

    def flat(self, value: Any, layers: Sequence[slice]) -> list[Tensor] | None:
        """The tensors of a ``value`` that is put together so; None if it is not."""
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
