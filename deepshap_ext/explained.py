"""What explaining inputs gave: of one chunk of them, and of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .capture.graph import Cut
from .found import Found
from .moments import OverBaselines


@dataclass
class Activations:
    """An explained tensor of the inputs ``[B, *features]``, and of their ``baselines``: ``[R, *features]`` that they share, or ``[B, R,
    *features]`` that are each input's ``own``."""

    inputs: Tensor
    baselines: Tensor
    own: bool

    def __add__(self, more: Activations) -> Activations:
        """The same inputs with the baselines of both."""
        return replace(self, baselines=torch.cat([self.baselines, more.baselines], 1 if self.own else 0))


@dataclass
class Explained:
    """What explaining ``B`` inputs gave, ``K`` outputs each.

    - ``found``: the values, one item an explained tensor; ``layers``: which of these tensors are each layer's.
    - ``outputs`` ``[B, K]``: the explained outputs for the inputs; ``targets`` ``[B, K]``: which of the flattened outputs these are.
    - ``baseline_outputs`` ``[K, B]``, float64: the same outputs, averaged over the baselines or for each; ``weights``: of the baselines.
    - ``inexact``: operations that keep attributions from adding up, with the positions of the inputs concerned.
    - ``cuts``: which layers' attributions add up, and together with which.
    - ``precision``: the least precise dtype that the passes computed in.
    - ``integrals``: operations that were integrated, each with the largest gap of a pair, in units of the explained output.
    - ``activations``: one item an explained tensor, if wanted.
    """

    found: list[Found]
    layers: list[slice]
    outputs: Tensor
    baseline_outputs: OverBaselines
    weights: Tensor
    targets: Tensor
    inexact: dict[str, set[int]]
    cuts: list[Cut]
    precision: torch.dtype
    integrals: dict[str, float]
    activations: list[Activations]

    @property
    def expected(self) -> Tensor:
        """``[B, K]``: the explained outputs' mean over the baselines, in float64."""
        return self.baseline_outputs.mean(self.weights).t()

    def with_more_baselines(self, more: Explained) -> Explained:
        """The same inputs against the baselines of both."""
        return replace(
            self,
            found=[one + other for one, other in zip(self.found, more.found, strict=True)],
            baseline_outputs=self.baseline_outputs + more.baseline_outputs,  # type: ignore[operator]
            inexact=_union(self.inexact, more.inexact),
            integrals=_largest(self.integrals, more.integrals),
            cuts=_both(self.cuts, more.cuts),
            activations=[one + other for one, other in zip(self.activations, more.activations, strict=True)],
        )

    def room(self, inputs: int) -> Explained:
        """Uninitialized tensors for so many inputs, of the shapes that these have, to be filled by :meth:`put`."""

        def of(tensor: Tensor, dim: int = 1) -> Tensor:
            return tensor.new_empty(*tensor.shape[:dim], inputs, *tensor.shape[dim + 1 :])

        return replace(
            self,
            found=[one.map(of) for one in self.found],
            outputs=of(self.outputs, 0),
            baseline_outputs=self.baseline_outputs.map(of),
            targets=of(self.targets, 0),
            inexact={},
            activations=[
                Activations(of(one.inputs, 0), of(one.baselines, 0) if one.own else one.baselines, one.own)
                for one in self.activations
            ],
        )

    def put(self, first: int, part: Explained) -> None:
        """Fill the places of the inputs from ``first`` on with those of ``part``."""
        here = slice(first, first + len(part.outputs))
        for dim, (ours, theirs) in enumerate(zip(self._tensors(), part._tensors(), strict=True)):
            for mine, its in zip(ours, theirs, strict=True):
                mine[(slice(None),) * dim + (here,)] = its
        self.inexact = _union(
            self.inexact, {title: {first + row for row in rows} for title, rows in part.inexact.items()}
        )
        self.cuts = _both(self.cuts, part.cuts)
        self.integrals = _largest(self.integrals, part.integrals)

    def _tensors(self) -> tuple[list[Tensor], list[Tensor]]:
        """The tensors whose first dimension is the inputs, and those whose second is."""
        own = [one.baselines for one in self.activations if one.own]
        first = [self.outputs, self.targets, *(one.inputs for one in self.activations), *own]
        return first, [self.baseline_outputs.value, *(tensor for one in self.found for tensor in one.tensors())]


def _both(some: Sequence[Cut], others: Sequence[Cut]) -> list[Cut]:
    """The cuts of both: a cut is whole where it is whole in both."""
    return [
        replace(one, whole=one.whole and other.whole, past=one.past or other.past)
        for one, other in zip(some, others, strict=True)
    ]


def _largest(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {title: max(one.get(title, 0.0), other.get(title, 0.0)) for title in {**one, **other}}


def _union(one: dict[str, set[int]], other: dict[str, set[int]]) -> dict[str, set[int]]:
    return {title: one.get(title, set()) | other.get(title, set()) for title in {**one, **other}}
