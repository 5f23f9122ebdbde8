"""Reads of one part each of a tensor, as ``q, k, v = x[0], x[1], x[2]`` or ``x[:, :n], x[:, n:]``: their gradients are put side by side
once.

Autograd fills a tensor of the whole's size with zeros for each part, and adds these up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..rules.linear import unbind
from .dependence import plain

#: Only tensors of at most so many parts are split for such reads: the gradient of each part that is never read is filled with zeros.
MOST = 4


class Parts:
    """The parts of tensors that a model has begun to read one by one.

    A part that ``unbind`` or ``split`` gives may not be written into; ``on``: whether the model does not.
    """

    def __init__(self, on: bool) -> None:
        self._on = on
        self._unread: dict[tuple[int, int, int | None], tuple[Tensor, int, list[Tensor | None]]] = {}

    def read(self, name: Any, args: Any, kwargs: Any) -> Tensor | None:
        """The result of an operation that reads one part of its first argument, or None if it is no such operation."""
        place = _place(name, args) if self._on and not kwargs else None
        if place is None:
            return None
        whole, of = args[0], (id(args[0]), place.dim, place.size)
        if of not in self._unread or self._unread[of][1] != whole._version:
            made = unbind(whole, place.dim) if place.size is None else whole.split(place.size, place.dim)
            self._unread[of] = whole, whole._version, [*made]
        parts = self._unread[of][2]
        # Each part is given once: two reads must give two tensors, since the model may reshape one of them in place.
        part, parts[place.number] = parts[place.number], None
        if all(one is None for one in parts):
            del self._unread[of]
        return part

    def forget(self) -> None:
        """Let go of what was not read."""
        self._unread.clear()


@dataclass(frozen=True)
class _Place:
    """Part ``number`` along ``dim``, of ``size``; None: of size 1, without the dimension."""

    dim: int
    size: int | None
    number: int


def _place(name: Any, args: Any) -> _Place | None:
    """The only part that is read; None for other reads, and of more than a few parts or parts of several sizes."""
    if name == "select" and len(args) == 3:
        dim, index = args[1:]
    elif name == "getitem":
        indices = args[1] if isinstance(args[1], tuple) else (args[1],)
        chosen = [at for at, one in enumerate(indices) if not _is_whole(one)]
        if len(chosen) != 1:
            return None
        (dim,) = chosen
        index = indices[dim]
        dim -= len(indices) if any(one is Ellipsis for one in indices[:dim]) else 0
    else:
        return None
    whole = args[0]
    if plain(whole) is not whole or type(dim) is not int or not -whole.dim() <= dim < whole.dim():
        return None
    dim, total = dim % whole.dim(), whole.shape[dim]
    if type(index) is int:
        return _Place(dim, None, index % total) if 1 < total <= MOST and -total <= index < total else None
    if type(index) is not slice or any(type(one) is not int for one in _ends(index)) or index.step is not None:
        return None
    first, last, _ = index.indices(total)
    size = last - first
    alike = size > 0 and total % size == 0 and first % size == 0
    return _Place(dim, size, first // size) if alike and 1 < total // size <= MOST else None


def _ends(index: slice) -> list[Any]:
    return [one for one in (index.start, index.stop) if one is not None]


def _is_whole(index: Any) -> bool:
    """Whether an index leaves a dimension, or several, as they are."""
    return index is Ellipsis or (type(index) is slice and index.start is index.stop is index.step is None)
