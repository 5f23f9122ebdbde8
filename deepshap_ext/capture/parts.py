"""Reads of one part each of a tensor, as ``q, k, v = x[0], x[1], x[2]``: their gradients are put side by side once.

Autograd fills a tensor of the whole's size with zeros for each part, and adds these up.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..rules.linear import unbind
from .dependence import plain

#: Of how many parts each is taken to be read: what is not read is filled with zeros.
MOST = 4


class Parts:
    """The parts of tensors that a model has begun to read one by one.

    A part that :func:`torch.unbind` gives may not be written into; ``on``: whether the model does not.
    """

    def __init__(self, on: bool) -> None:
        self._on = on
        self._unread: dict[tuple[int, int], tuple[Tensor, int, list[Tensor | None]]] = {}

    def read(self, name: Any, args: Any, kwargs: Any) -> Tensor | None:
        """The result of an operation that reads one part of its first argument, or None if it is no such operation."""
        place = _place(name, args) if self._on and not kwargs else None
        if place is None:
            return None
        whole, (dim, index) = args[0], place
        of = id(whole), dim
        if of not in self._unread or self._unread[of][1] != whole._version:
            self._unread[of] = whole, whole._version, [*unbind(whole, dim)]
        parts = self._unread[of][2]
        # Each is given once: what is read twice may be changed, as a view, without the other.
        part, parts[index] = parts[index], None
        if all(one is None for one in parts):
            del self._unread[of]
        return part

    def forget(self) -> None:
        """Let go of what was not read."""
        self._unread.clear()


def _place(name: Any, args: Any) -> tuple[int, int] | None:
    """The dimension and the place of the only part that is read; None for other reads, and of more than a few parts."""
    if name == "select" and len(args) == 3:
        dim, index = args[1:]
    elif name == "getitem":
        indices = args[1] if isinstance(args[1], tuple) else (args[1],)
        numbers = [at for at, one in enumerate(indices) if type(one) is int]
        if len(numbers) != 1 or not all(type(one) is int or _is_whole(one) for one in indices):
            return None
        (dim,) = numbers
        index = indices[dim]
        dim -= len(indices) if Ellipsis in indices[:dim] else 0
    else:
        return None
    whole = args[0]
    if plain(whole) is not whole or type(dim) is not int or type(index) is not int:
        return None
    if not -whole.dim() <= dim < whole.dim():
        return None
    number = whole.shape[dim]
    return (dim % whole.dim(), index % number) if 1 < number <= MOST and -number <= index < number else None


def _is_whole(index: Any) -> bool:
    """Whether an index leaves a dimension, or several, as they are."""
    return index is Ellipsis or (type(index) is slice and index.start is index.stop is index.step is None)
