"""What a forward pass leaves behind: its operations on input-dependent tensors, in call order, with what their rules need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .dependence import storage_key


@dataclass
class Entry:
    """One operation.

    ``kept`` are the tensors that its rule reads in the pair pass (detached). An operation with ``multipliers`` None has no rule of its
    own: it is linear as long as ``kept``, which depend on the input and carry no gradient, are the same on both sides. ``value`` is
    what Python code read from an input-dependent tensor (``item()``, ``bool()``) or the constant arguments of a rule. ``past``: ``kept``
    come from the model's inputs past the explained layer. ``culprit``: what a message names instead of the operation, the comparison
    that made a mask, say. ``nodes``: the places in the autograd graph of what a linear operation made of ``kept``. ``scale`` and
    ``takes_scale``: as of :class:`deepshap_ext.rules.registry.Application`. ``taken``: the scale that it takes over.
    """

    title: str
    module: str
    kept: list[Tensor]
    multipliers: Callable[..., Any] | None = None
    value: Any = None
    past: bool = False
    culprit: str | None = None
    nodes: Sequence[Node] = ()
    scale: Tensor | None = None
    takes_scale: bool = False
    taken: Tensor | None = None
    versions: list[int] = field(default_factory=list)
    number: int = -1

    @property
    def called(self) -> str:
        """The operation and the module that it runs in."""
        return f"{self.title} in {self.module}"

    def __str__(self) -> str:
        return self.culprit or self.called


class Factor:
    """A constant tensor that the autograd graph keeps for its backward."""

    def __init__(self, tensor: Tensor) -> None:
        self.kept = [tensor.detach()]
        self.versions = [tensor._version]


class Tape:
    """The entries of one forward pass; what they keep is copied before the model writes into it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._readers: dict[int | None, list[tuple[Entry | Factor, int]]] = {}
        self._constants: dict[int | None, list[Tensor]] = {}

    def append(self, entry: Entry) -> None:
        entry.kept = [tensor.detach() for tensor in entry.kept]
        entry.versions = [tensor._version for tensor in entry.kept]
        self._watch(entry)
        entry.number = len(self.entries)
        self.entries.append(entry)

    def factor(self, tensor: Tensor) -> Factor:
        """Keep a constant tensor for the graph."""
        factor = Factor(tensor)
        self._watch(factor)
        return factor

    def constants(self, value: Any) -> Any:
        """A call's arguments as a rule may keep them and read them in the pair pass: with aliases of the constant tensors, which the
        model's later writes do not reach."""
        if isinstance(value, Tensor):
            kept = value.requires_grad or value.layout != torch.strided
            return value if kept else self._constant(value)
        if type(value) in (list, tuple):
            return type(value)(map(self.constants, value))
        if isinstance(value, dict):
            return {key: self.constants(item) for key, item in value.items()}
        return value

    def _constant(self, tensor: Tensor) -> Tensor:
        alias = tensor.detach()
        self._constants.setdefault(storage_key(tensor), []).append(alias)
        return alias

    def _watch(self, reader: Entry | Factor) -> None:
        for position, tensor in enumerate(reader.kept):
            self._readers.setdefault(storage_key(tensor), []).append((reader, position))

    def before_write(self, tensor: Tensor) -> None:
        """Copy what is kept of a tensor that is about to be modified in place; sparse ones are not kept."""
        if tensor.layout != torch.strided:
            return
        for reader, position in self._readers.pop(storage_key(tensor), ()):
            reader.kept[position] = reader.kept[position].clone()
            reader.versions[position] = reader.kept[position]._version
        for alias in self._constants.pop(storage_key(tensor), ()):
            alias.data = alias.clone()

    def rewind(self, length: int) -> None:
        """Forget the entries from number ``length`` on."""
        forgotten = {id(entry) for entry in self.entries[length:]}
        del self.entries[length:]
        for key, readers in list(self._readers.items()):
            self._readers[key] = [reader for reader in readers if id(reader[0]) not in forgotten]

    def release(self) -> None:
        """Drop the rules, which hold on to their operands and with them to the graph: the tape is a reference pass's."""
        self._readers.clear()
        self._constants.clear()
        for entry in self.entries:
            entry.multipliers = entry.multipliers and _released
            entry.nodes = ()

    def overwritten(self) -> Entry | None:
        """The first entry whose tensors were modified where the capture could not see it."""
        for entry in self.entries:
            if any(tensor._version != version for tensor, version in zip(entry.kept, entry.versions, strict=True)):
                return entry
        return None


def _released(*_: Any) -> NoReturn:
    raise RuntimeError("the pass was released: its multipliers cannot be computed any more")
