"""What a forward pass leaves behind: its operations on input-dependent tensors, in call order, with what their rules need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor

from .dependence import storage_key


@dataclass
class Entry:
    """One operation.

    ``kept`` are the tensors that its rule reads in the pair pass (detached). An operation with ``multipliers`` None has no rule of its
    own: it is linear as long as ``kept``, which depend on the input and carry no gradient, are the same on both sides. ``value`` is
    what Python code read from an input-dependent tensor (``item()``, ``bool()``) or the constant arguments of a rule. ``past``: ``kept``
    come from the model's inputs past the explained layer.
    """

    title: str
    module: str
    kept: list[Tensor]
    multipliers: Callable[..., Any] | None = None
    value: Any = None
    past: bool = False
    versions: list[int] = field(default_factory=list)
    number: int = -1

    def __str__(self) -> str:
        return f"{self.title} in {self.module}"


class Tape:
    """The entries of one forward pass, its output and the explained tensors."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._readers: dict[int, list[tuple[Entry, int]]] = {}

    def append(self, entry: Entry) -> None:
        entry.kept = [tensor.detach() for tensor in entry.kept]
        entry.versions = [tensor._version for tensor in entry.kept]
        for position, tensor in enumerate(entry.kept):
            self._readers.setdefault(storage_key(tensor), []).append((entry, position))
        entry.number = len(self.entries)
        self.entries.append(entry)

    def before_write(self, tensor: Tensor) -> None:
        """Copy what the tape keeps of a tensor that is about to be modified in place."""
        for entry, position in self._readers.pop(storage_key(tensor), ()):
            entry.kept[position] = entry.kept[position].clone()
            entry.versions[position] = entry.kept[position]._version

    def release(self) -> None:
        """Drop the rules, which hold on to their operands and with them to the graph: the tape is a reference pass's."""
        for entry in self.entries:
            entry.multipliers = entry.multipliers and _released

    def overwritten(self) -> Entry | None:
        """The first entry whose tensors were modified where the capture could not see it."""
        for entry in self.entries:
            if any(tensor._version != version for tensor, version in zip(entry.kept, entry.versions, strict=True)):
                return entry
        return None


def _released(*_: Any) -> NoReturn:
    raise RuntimeError("the pass was released: its multipliers cannot be computed any more")
