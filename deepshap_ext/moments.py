"""Contributions over baselines: their mean and spread, by input."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .capture.layout import Layout


@dataclass
class Moments:
    """Mean and, where asked for, sum of squared deviations of contributions over ``count`` baselines, ``[K, B, *features]`` each."""

    count: int
    mean: Tensor
    m2: Tensor | None

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan, Golub and LeVeque 1983, equations 1.5)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        if self.m2 is None or other.m2 is None:
            return Moments(count, mean, None)
        m2 = self.m2 + other.m2 + delta.square() * (self.count * other.count / count)
        return Moments(count, mean, m2)

    def by_input(self, layout: Layout, repeats: int, inputs: int) -> Moments:
        """The first ``inputs`` inputs' own, from moments of contributions in a tensor's own layout.

        ``repeats`` consecutive rows are one input's, each with another baseline.
        """
        mean, m2 = (None if one is None else _rows(one, layout)[:, : inputs * repeats] for one in (self.mean, self.m2))
        assert mean is not None
        if repeats == 1:
            return Moments(self.count, mean, m2)
        each = mean.unflatten(1, (-1, repeats))
        mean = each.mean(2)
        spread = None if m2 is None else (each - mean.unsqueeze(2)).square().sum(2)
        return Moments(repeats, mean, spread)

    def sums(self) -> Tensor:
        """``[B, K]``: each input's values summed, in float64."""
        return (self.mean.double().flatten(2).sum(2) if self.mean.dim() > 2 else self.mean.double()).t()


def _rows(tensor: Tensor, layout: Layout) -> Tensor:
    """``[K, B, *features]`` from ``K`` tensors of this layout."""
    inside = replace(layout, dim=layout.dim + 1)
    split = inside.split(tensor).movedim(inside.dim + 1, 1).flatten(inside.dim + 1, inside.dim + 2)
    return split.squeeze(inside.dim + 1)
