"""Numbers of pairs of inputs and baselines, over the baselines: averaged, or kept for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Weighted mean and, where asked for, variance over baselines, ``[K, B, *shape]`` each; ``weight`` ``[]``: their total."""

    weight: Tensor
    value: Tensor
    variance: Tensor | None = None

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan, Golub and LeVeque 1983, equations 1.5, with weights)."""
        weight = self.weight + other.weight
        share = other.weight / weight
        delta = other.value - self.value
        value = self.value + delta * share
        if self.variance is None or other.variance is None:
            return Moments(weight, value)
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * delta.square()
        return Moments(weight, value, variance)

    def mean(self, weights: Tensor) -> Tensor:
        """``[K, B, *shape]``: over all baselines, which have these ``weights``."""
        return self.value

    def of_first(self, number: int, weight: Tensor) -> Moments:
        """The moments over the first baselines, which have this total ``weight``, where the others had weight 0."""
        return Moments(weight, self.value, self.variance)

    def map(self, function: Callable[[Tensor], Tensor]) -> Moments:
        """``function`` of every tensor."""
        value = function(self.value)
        return Moments(self.weight, value, None if self.variance is None else function(self.variance))


@dataclass(frozen=True)
class Each:
    """The number itself for every baseline, ``[K, B, R, *shape]``."""

    value: Tensor
    variance: None = None

    def __add__(self, other: Each) -> Each:
        return Each(torch.cat([self.value, other.value], 2))

    def mean(self, weights: Tensor) -> Tensor:
        """``[K, B, *shape]``: over the baselines, which have these ``weights``."""
        return over_baselines(self.value, weights, False).value

    def of_first(self, number: int, weight: Tensor) -> Each:
        """The numbers for the first baselines."""
        return Each(self.value[:, :, :number])

    def map(self, function: Callable[[Tensor], Tensor]) -> Each:
        return Each(function(self.value))


OverBaselines = Moments | Each


def over_baselines(pairs: Tensor, weights: Tensor, each: bool, variance: bool = False) -> OverBaselines:
    """Numbers of pairs ``[K, B, J, *shape]`` over their baselines, of weights ``[J]``: of each, or averaged in float64."""
    if each:
        return Each(pairs)
    shares = (weights / weights.sum()).to(pairs.device).view(-1, *[1] * (pairs.dim() - 3))
    wide = pairs.double()
    mean = (wide * shares).sum(2)
    spread = ((wide - mean.unsqueeze(2)).square() * shares).sum(2).to(pairs.dtype) if variance else None
    return Moments(weights.sum(), mean.to(pairs.dtype), spread)
