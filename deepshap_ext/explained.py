"""What explaining inputs gave, chunk by chunk and in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .capture.graph import Cut
from .moments import Moments


@dataclass
class Explained:
    """What explaining ``B`` inputs gave, ``K`` outputs each.

    ``moments``: one an explained tensor; ``sums``, ``[B, K]`` in float64: of each, the sum of an input's values; ``layers``: which of
    them are each layer's. ``outputs`` and ``expected``, ``[B, K]``: the explained outputs for the inputs, and their mean over the
    baselines. ``targets``, ``[B, K]``: which of the flattened outputs these are. ``inexact``: operations that keep attributions from adding
    up, with the positions of the inputs concerned. ``cuts``: which layers' attributions add up, and together with which. ``precision``: the
    least precise dtype that the passes computed in. ``integrals``: what was integrated, with how far its integral is from adding up for
    the worst pair, in units of the explained output.
    """

    moments: list[Moments]
    sums: list[Tensor]
    layers: list[slice]
    outputs: Tensor
    expected: Tensor
    targets: Tensor
    inexact: dict[str, set[int]]
    cuts: list[Cut]
    precision: torch.dtype
    integrals: dict[str, float]

    def with_more_baselines(self, more: Explained) -> Explained:
        """The same inputs against these baselines and more."""
        moments = [a + b for a, b in zip(self.moments, more.moments, strict=True)]
        return replace(
            self,
            moments=moments,
            sums=[one.sums() for one in moments],
            expected=self.expected + more.expected,
            inexact=_union(self.inexact, more.inexact),
            integrals=_largest(self.integrals, more.integrals),
            cuts=_both(self.cuts, more.cuts),
        )

    def room(self, inputs: int) -> Explained:
        """Room for so many inputs, explained like these."""

        def of(tensor: Tensor, dim: int) -> Tensor:
            return tensor.new_empty(*tensor.shape[:dim], inputs, *tensor.shape[dim + 1 :])

        return replace(
            self,
            moments=[
                Moments(m.weight, of(m.mean, 1), None if m.variance is None else of(m.variance, 1))
                for m in self.moments
            ],
            sums=[of(one, 0) for one in self.sums],
            outputs=of(self.outputs, 0),
            expected=of(self.expected, 0),
            targets=of(self.targets, 0),
            inexact={},
        )

    def put(self, first: int, part: Explained) -> None:
        """Fill the places from ``first`` on."""
        here = slice(first, first + len(part.outputs))
        for ours, theirs in zip(self.moments, part.moments, strict=True):
            ours.mean[:, here] = theirs.mean
            if ours.variance is not None and theirs.variance is not None:
                ours.variance[:, here] = theirs.variance
        for mine, its in zip(self._by_input(), part._by_input(), strict=True):
            mine[here] = its
        self.inexact = _union(
            self.inexact, {title: {first + row for row in rows} for title, rows in part.inexact.items()}
        )
        self.cuts = _both(self.cuts, part.cuts)
        self.integrals = _largest(self.integrals, part.integrals)

    def _by_input(self) -> list[Tensor]:
        return [*self.sums, self.outputs, self.expected, self.targets]


def _both(some: Sequence[Cut], others: Sequence[Cut]) -> list[Cut]:
    """The layers that add up in both."""
    return [
        replace(one, whole=one.whole and other.whole, past=one.past or other.past)
        for one, other in zip(some, others, strict=True)
    ]


def _largest(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {title: max(one.get(title, 0.0), other.get(title, 0.0)) for title in {**one, **other}}


def _union(one: dict[str, set[int]], other: dict[str, set[int]]) -> dict[str, set[int]]:
    return {title: one.get(title, set()) | other.get(title, set()) for title in {**one, **other}}
