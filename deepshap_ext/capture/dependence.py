"""Which tensors were made from the explained input, gradient or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


@dataclass
class _Mark:
    storage: StorageWeakRef
    explained: bool
    random: str | None


class Dependence:
    """The set of storages that hold something computed from the input.

    Marking the storage and not the tensor object covers views and their bases, ``detach()``, ``.data`` and writes through any of
    them. The weak reference keeps the storage's address from being reused for another one while it is in the set.
    """

    def __init__(self) -> None:
        self._storages: dict[int, _Mark] = {}

    def mark(self, tensor: Tensor, explained: bool, random: str | None = None) -> None:
        """Add the tensor's storage; ``explained``: it holds what is explained, or was made from that; ``random`` names the random
        function that it was made with, if any."""
        storage = plain(tensor).untyped_storage()
        known = self._storages.get(storage._cdata)
        if known is None:
            self._storages[storage._cdata] = _Mark(StorageWeakRef(storage), explained, random)
        else:
            known.explained |= explained
            known.random = random or known.random

    def random(self, tensor: Tensor) -> str | None:
        """The random function that the tensor was made with, None if there was none."""
        known = self._storages.get(storage_key(tensor))
        return known.random if known else None

    def explained(self, tensor: Tensor) -> bool:
        """Whether the tensor was made from what is explained, and not only from the model's inputs before that."""
        known = self._storages.get(storage_key(tensor))
        return known is not None and known.explained

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.layout == torch.strided and storage_key(tensor) in self._storages

    def of(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor for tensor in tensors if tensor in self]


def storage_key(tensor: Tensor) -> int:
    """The identity of the memory that the tensor is a view of."""
    return int(plain(tensor).untyped_storage()._cdata)


def plain(tensor: Tensor) -> Tensor:
    """The tensor under the wrappers of `torch.func` transforms that a model runs inside its forward."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, slice):
        yield from tensors_in((value.start, value.stop, value.step))
