"""What a pass finds out about its tensors as it runs, and leaves behind for the walk over the graph and the pair pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from ..errors import OF_INTEGERS
from ..rules.registry import Options
from .applied import Running
from .calls import nodes_of
from .codes import Codes
from .dependence import Dependence
from .location import Location
from .names import Operation
from .origins import Origins
from .tape import Entry, Tape


class Record:
    """What is known of one pass; rules ask it as their :class:`deepshap_ext.rules.registry.Context`.

    ``without_rule``: the messages for nodes of the autograd graph that multipliers must not reach. ``meetings``: where in the model tensors
    that carry multipliers past the explained layer meet what is explained, by node.
    """

    def __init__(self, options: Options, location: Location) -> None:
        self.options = options
        self._location = location
        self.dependence = Dependence()
        self.codes = Codes()
        self.tape = Tape()
        self.running = Running()
        self.origins = Origins()
        self.without_rule: dict[Node, str] = {}
        self.meetings: dict[Node, str] = {}

    def carries(self, value: Any) -> bool:
        """See :class:`deepshap_ext.rules.registry.Context`."""
        return self.dependence.carries(value)

    def inverse_of(self, value: Tensor) -> tuple[Tensor, str] | None:
        """See :class:`deepshap_ext.rules.registry.Context`."""
        origin = self.origins.of(value)
        return (origin.operand, origin.name) if origin and origin.name in ("rsqrt", "reciprocal") else None

    def mark(
        self, called: Operation, made: Sequence[Tensor], dependent: Sequence[Tensor], random: str | None = None
    ) -> None:
        """Note that what an operation ``made`` depends on the input as the tensors do that it was made from. ``random``: what is random."""
        marks = [self.dependence[tensor] for tensor in dependent]
        explained = sum([mark.explained for mark in marks])
        if 0 < explained < len(marks):
            past = [t for t, mark in zip(dependent, marks, strict=True) if t.requires_grad and not mark.explained]
            if past:
                self.meetings.update(dict.fromkeys(nodes_of(made, made), self._location.of(called)))
        decision = None
        for tensor in made:
            if tensor.layout is not torch.strided:
                self._location.refuse(
                    called, f"makes a tensor of layout {tensor.layout}: only dense tensors can be explained"
                )
            passive = not tensor.requires_grad
            if passive and decision is None:
                if self._of_integers(dependent):
                    decision = self._location.of(called, OF_INTEGERS)
                elif any(self.dependence.carries(tensor) or tensor in self.codes for tensor in dependent):
                    decision = self._location.of(called)
                else:
                    decision = next((mark.decision for mark in marks if mark.decision), None)
            self.dependence.mark(tensor, explained > 0, random, decision if passive else None)

    def join(self, called: Operation, passive: Sequence[Tensor]) -> list[Entry]:
        """Put on the tape what an operation reads that depends on the input and carries no gradient: the operation is linear only while
        these tensors are the same on both sides."""
        groups: dict[tuple[bool, str | None], list[Tensor]] = {}
        for tensor in passive:
            mark = self.dependence[tensor]
            groups.setdefault((mark.explained, mark.decision), []).append(tensor)
        entries = []
        for (explained, decision), kept in groups.items():
            culprit = decision if explained else self._location.of(called)
            if explained and not decision and self._of_integers(kept):
                culprit = self._location.of(called, OF_INTEGERS)
            entry = Entry(called.title, self._location.module(), kept, past=not explained, culprit=culprit)
            self.tape.append(entry)
            entries.append(entry)
        return entries

    def _of_integers(self, tensors: Sequence[Tensor]) -> bool:
        """Whether integers among these are explained as inputs of their own, not only as columns of numbers."""
        return bool(self.codes.inputs) and any(tensor in self.codes for tensor in tensors)

    def release(self) -> None:
        """Let go of the autograd graph and of storages; what the tape keeps stays."""
        self.dependence = Dependence()
        self.codes = Codes()
        self.without_rule.clear()
        self.meetings.clear()
        self.origins.clear()
        self.tape.release()
