"""Contributions over baselines: their mean and spread, by input."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .capture.layout import Layout


@dataclass
class Moments:
    """Mean and, where asked for, variance of contributions over baselines that weigh ``weight`` together, ``[K, B, *features]`` each."""

    weight: float
    mean: Tensor
    variance: Tensor | None

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan, Golub and LeVeque 1983, equations 1.5, of weights and divided by their sum)."""
        weight = self.weight + other.weight
        share = other.weight / weight
        delta = other.mean - self.mean
        mean = self.mean + share * delta
        if self.variance is None or other.variance is None:
            return Moments(weight, mean, None)
        within = (1 - share) * self.variance + share * other.variance
        return Moments(weight, mean, within + share * (1 - share) * delta.square())

    def by_input(self, layout: Layout, repeats: int, inputs: int) -> Moments:
        """The first ``inputs`` inputs' own, from moments of contributions in a tensor's own layout.

        ``repeats`` consecutive rows are one input's, each with another baseline.
        """
        mean, variance = (
            None if one is None else _rows(one, layout)[:, : inputs * repeats] for one in (self.mean, self.variance)
        )
        assert mean is not None
        if repeats == 1:
            return Moments(self.weight, mean, variance)
        each = mean.unflatten(1, (-1, repeats))
        mean = each.mean(2)
        spread = None if variance is None else (each - mean.unsqueeze(2)).square().mean(2)
        return Moments(repeats, mean, spread)

    def sums(self) -> Tensor:
        """``[B, K]``: each input's values summed, in float64."""
        return (self.mean.double().flatten(2).sum(2) if self.mean.dim() > 2 else self.mean.double()).t()


def _rows(tensor: Tensor, layout: Layout) -> Tensor:
    """``[K, B, *features]`` from ``K`` tensors of this layout."""
    inside = replace(layout, dim=layout.dim + 1)
    split = inside.split(tensor).movedim(inside.dim + 1, 1).flatten(inside.dim + 1, inside.dim + 2)
    return split.squeeze(inside.dim + 1)
