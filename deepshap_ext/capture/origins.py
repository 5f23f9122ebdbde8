"""Which operation made a tensor, for the few operations that later ones look back to."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Origin:
    """The operation ``name`` made ``result`` from ``operand``; ``versions`` are those of the two tensors when it ran."""

    result: weakref.ref[Tensor]
    versions: tuple[int, int]
    operand: Tensor
    name: str
    parameters: tuple[Any, ...]


class Origins:
    """The origins of tensors that are alive; a tensor's operand is held no longer than the tensor itself lives."""

    def __init__(self) -> None:
        self._known: dict[int, Origin] = {}

    def note(self, name: str, result: Tensor, operand: Tensor, parameters: tuple[Any, ...] = ()) -> None:
        """``parameters``: those of the operation's rule."""
        forget = partial(self._known.pop, id(result))
        versions = result._version, operand._version
        self._known[id(result)] = Origin(weakref.ref(result, forget), versions, operand, name, parameters)

    def of(self, tensor: Tensor) -> Origin | None:
        """The noted origin of a tensor; None if it has none, or the tensor or its operand was written into since."""
        origin = self._known.get(id(tensor))
        return origin if origin and origin.versions == (tensor._version, origin.operand._version) else None

    def clear(self) -> None:
        self._known.clear()
