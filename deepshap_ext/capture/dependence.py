"""Which tensors were made from the explained input, gradient or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

#: Whether a tensor is a wrapper that a transform of ``torch.func`` puts around another.
is_wrapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor


@dataclass
class Mark:
    """What is known of a storage that holds something computed from the input.

    ``explained``: it holds what is explained, or was made from that, and not only from the model's inputs before that. ``random``: the
    random operation that it was made with. ``decision``: the operation that first made
    something without a gradient, as a mask is, of something that carries multipliers.
    """

    storage: StorageWeakRef
    explained: bool = False
    random: str | None = None
    decision: str | None = None


class Dependence:
    """The set of storages that hold something computed from the input.

    Marking the storage and not the tensor object covers views and their bases, ``.data`` and writes through any of them. The weak
    reference keeps the storage's address from being reused for another one while it is in the set.
    """

    def __init__(self) -> None:
        self._storages: dict[int | None, Mark] = {}
        #: Whether any mark is random: most models have none.
        self.has_random = False

    def mark(self, tensor: Tensor, explained: bool, random: str | None = None, decision: str | None = None) -> None:
        """Add the tensor's storage, or what it now holds as well; see :class:`Mark`."""
        storage = (plain(tensor) if is_wrapped(tensor) else tensor).untyped_storage()
        known = self._storages.get(storage._cdata)
        if known is None:
            known = self._storages[storage._cdata] = Mark(StorageWeakRef(storage))
        known.explained |= explained
        known.random = random or known.random
        known.decision = decision or known.decision
        self.has_random |= random is not None

    def __getitem__(self, tensor: Tensor) -> Mark:
        return self._storages[storage_key(tensor)]

    def __contains__(self, tensor: Tensor) -> bool:
        return storage_key(tensor) in self._storages

    def of(self, value: Any) -> list[Tensor]:
        """The tensors in a call's arguments that depend on the input."""
        return self.among(tensors_in(value))

    def carries(self, value: Any) -> bool:
        """Whether multipliers flow to the value: a tensor made from the input that carries a gradient."""
        if not isinstance(value, Tensor):
            return False
        # Constants do not require a gradient: most need no more than this look.
        return (plain(value) if is_wrapped(value) else value).requires_grad and value in self

    def among(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Those of the tensors that depend on the input."""
        known = self._storages
        return [tensor for tensor in tensors if storage_key(tensor) in known]

    def random_among(self, tensors: Sequence[Tensor]) -> str | None:
        """What made the first of these that is random so; None if none is. All depend on the input."""
        return next(filter(None, (self[tensor].random for tensor in tensors)), None)


def storage_key(tensor: Tensor) -> int | None:
    """The identity of the memory that the tensor is a view of; None for a sparse one, which has none of its own."""
    if is_wrapped(tensor):
        tensor = plain(tensor)
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else None


def plain(tensor: Tensor) -> Tensor:
    """The tensor under the wrappers of `torch.func` transforms that a model runs inside its forward."""
    while is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts, in order."""
    found: list[Tensor] = []
    _collect((value,), found)
    return found


def _collect(values: Iterable[Any], found: list[Tensor]) -> None:
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, found)
        elif isinstance(value, dict):
            _collect(value.values(), found)
        elif isinstance(value, slice):
            _collect((value.start, value.stop, value.step), found)
