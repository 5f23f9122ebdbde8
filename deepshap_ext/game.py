"""The game whose Shapley values are estimated: which players there are, and a sample's inputs where some of them are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .baselines import Baselines


@dataclass(frozen=True)
class Game:
    """Players that each hold some features of a sample.

    In a coalition's input, the features of its players have the sample's values, and all others the baseline's.

    ``inputs``: the model's inputs ``[N, ...]``, of which the first ``explained`` are explained, and behind them further arguments that a
    sample shares with its baselines. ``labels`` ``[1 or N, F]``: the player of each of the ``F`` features of all explained inputs; None:
    each feature is one. ``players``: how many there are.
    """

    inputs: Sequence[Tensor]
    explained: int
    baselines: Baselines
    labels: Tensor | None
    players: int

    def taking_part(self, samples: Tensor, baselines: Tensor) -> Tensor:
        """``[C, players]``: which players differ between these samples and their baselines, ``[C]`` each; others can change nothing."""
        sides = zip(*self.sides(samples, baselines), strict=True)
        differ = torch.cat([(x != r).reshape(len(x), -1) for x, r in sides][: self.explained], 1)
        return differ if self.labels is None else self.summed(differ.int()[None], samples)[0] > 0

    def sides(self, samples: Tensor, baselines: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The inputs of these samples and of these of their baselines, ``[C]`` each."""
        theirs = self.baselines.tensors
        own = (samples, baselines) if self.baselines.own else (baselines,)
        return [tensor[samples] for tensor in self.inputs], [tensor[own] for tensor in theirs]

    def points(self, sides: tuple[Sequence[Tensor], Sequence[Tensor]], inside: Tensor, samples: Tensor) -> list[Tensor]:
        """The inputs between two ``sides`` where the players ``inside`` ``[C, players]`` have the samples' values."""
        of_features = inside if self.labels is None else inside.gather(1, self._labels_of(samples))
        sizes = [tensor[0].numel() for tensor in self.inputs[: self.explained]]
        masks = of_features.split(sizes, 1)
        points = [torch.where(mask.view_as(x), x, r) for mask, x, r in zip(masks, *sides, strict=False)]
        return [*points, *sides[0][self.explained :]]

    def by_player(self, values: Sequence[Tensor], samples: Tensor) -> Tensor:
        """``[K, C, players]`` float64: the sum over each player's features of ``values``, ``[K, C, *features]`` an explained input."""
        of_features = torch.cat([value.double().reshape(*value.shape[:2], -1) for value in values], 2)
        return of_features if self.labels is None else self.summed(of_features, samples)

    def summed(self, of_features: Tensor, samples: Tensor) -> Tensor:
        """``[K, C, players]``: the sum over each player's features of numbers ``[K, C, F]``."""
        labels = self._labels_of(samples).expand_as(of_features)
        return of_features.new_zeros(*of_features.shape[:2], self.players).scatter_add_(2, labels, of_features)

    def _labels_of(self, samples: Tensor) -> Tensor:
        assert self.labels is not None
        return self.labels[samples] if len(self.labels) > 1 else self.labels.expand(len(samples), -1)
