"""The accuracy dial: how far to go from DeepSHAP to exact Shapley values, and between which players."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .arguments import flag, is_integer, shown, size_or_none
from .arrays import as_tensor
from .baselines import Baselines
from .found import Wanted
from .game import Game

#: The fewest passes that do more than DeepSHAP: an antithetic pair of chains of two legs takes four.
LEAST = 4


@dataclass(frozen=True)
class Dial:
    """The setting of the dial, from the arguments of :meth:`deepshap_ext.Explainer.attribute`.

    ``passes``: how many passes of DeepSHAP each sample and baseline may cost. ``legs``: how many legs a chain has; None: the best number
    for so many ``passes``. ``seed``: of the random orders. ``labels`` ``[1 or N, F]``: the player of each feature of all inputs; None: each
    feature is one.
    """

    passes: int
    legs: int | None
    seed: int
    labels: Tensor | None

    @property
    def deepshap(self) -> bool:
        """Whether values are DeepSHAP's own: of each feature, or summed over the features of each player."""
        return self.passes < LEAST

    @property
    def plain(self) -> bool:
        """Whether values are DeepSHAP's of each feature."""
        return self.deepshap and self.labels is None

    @property
    def most_legs(self) -> int:
        """How many legs a chain has, where no fewer players differ."""
        return self.legs or 2 ** round(math.log2(max(2.0, self.passes ** (1 / 3))))

    @property
    def few_players(self) -> int:
        """Where so many players or fewer differ, the values have no bias."""
        return max(self.most_legs, self._enumerated)

    def all_coalitions(self, players: int) -> bool:
        """Whether all coalitions of so many players are run."""
        return players <= self._enumerated

    def chains(self, legs: int) -> int:
        """How many antithetic pairs of chains of so many legs there are."""
        return self.passes // (2 * legs)

    @property
    def _enumerated(self) -> int:
        # Up to so many players, all coalitions are run: three forward passes cost as much as a pass of DeepSHAP.
        return int(math.log2(3 * self.passes)) if self.legs is None else 1

    def wanted(self, wanted: Wanted, layers: Sequence[Any], baselines: int) -> Wanted:
        """What DeepSHAP's pass has to give where the user wants ``wanted``; an error where the dial cannot give that."""
        if self.plain:
            return wanted
        what = "players" if self.deepshap else f"passes={self.passes}"
        if layers:
            raise ValueError(
                f"model must be explained at its inputs with {what}, got (model, layer): a layer has no coalitions of its own"
            )
        for name, asked, must in (
            ("multipliers", wanted.multipliers, "False"),
            ("combine", wanted.combine is not None, "None"),
            ("per_baseline", wanted.each, "False"),
            ("activations", wanted.activations, "False"),
        ):
            if asked:
                raise ValueError(f"{name} must be {must} with {what}, whose values are not those of single pairs")
        flag("standard_error", wanted.variance)
        if wanted.variance and self.deepshap:
            raise ValueError(f"standard_error must be False with players and passes below {LEAST}, got True")
        if wanted.variance and baselines == 1 and self.chains(self.most_legs) == 1:
            raise ValueError(
                f"standard_error=True needs two or more baselines, or passes={4 * self.most_legs} or more, got 1 and passes={self.passes}: "
                f"one pair of chains has no spread"
            )
        return replace(wanted, variance=False)

    def game(self, inputs: Sequence[Tensor], explained: int, baselines: Baselines) -> Game:
        """The game of the first ``explained`` of a model's inputs; behind them are its further arguments."""
        if self.labels is None:
            return Game(inputs, explained, baselines, None, sum(tensor[0].numel() for tensor in inputs[:explained]))
        labels = self.labels.to(inputs[0].device)
        return Game(inputs, explained, baselines, labels, int(labels.max()) + 1)


def check_dial(passes: Any, players: Any, seed: Any, legs: Any, inputs: Sequence[Tensor], listed: bool) -> Dial:
    """The arguments ``passes``, ``players``, ``seed`` and ``legs``, checked; ``inputs`` are X, which was ``listed`` or a single tensor."""
    check_passes(passes)
    if not is_integer(seed):
        raise TypeError(f"seed must be an integer, got {shown(seed)}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must be an integer of 64 bits, got {seed}")
    legs = size_or_none("legs", legs)
    if legs is not None and not 2 <= legs <= passes // 2:
        raise ValueError(
            f"legs must be None or from 2 to half of the passes, which an order and its reverse take, got {legs} for passes={passes}"
        )
    return Dial(int(passes), legs, int(seed), None if players is None else _labels(players, inputs, listed))


def check_passes(passes: Any) -> None:
    """Check the argument ``passes``."""
    if not is_integer(passes):
        raise TypeError(f"passes must be a positive integer, got {shown(passes)}")
    if passes < 1:
        raise ValueError(f"passes must be a positive integer, got {passes}")


def _labels(players: Any, inputs: Sequence[Tensor], listed: bool) -> Tensor:
    """``[1 or N, F]``: the argument ``players``, checked and flattened, one input behind the other."""
    given = players if listed else [players]
    if not isinstance(given, (list, tuple)) or len(given) != len(inputs):
        raise TypeError(f"players must be a list of {len(inputs)}, one for each input, got {shown(players)}")
    parts = []
    for number, (one, x) in enumerate(zip(given, inputs, strict=True)):
        label = f"players[{number}]" if listed else "players"
        tensor = as_tensor(label, one)
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise TypeError(f"{label} must hold integers, got {shown(one)}")
        if tensor.shape not in (x.shape, x.shape[1:]):
            raise ValueError(
                f"{label} must have the features' shape {list(x.shape[1:])}, or X's {list(x.shape)} for players of each sample, got "
                f"{list(tensor.shape)}"
            )
        parts.append(tensor.long().cpu().reshape(len(x) if tensor.shape == x.shape else 1, -1))
    rows = max(map(len, parts))
    labels = torch.cat([part.expand(rows, -1) for part in parts], 1)
    present = labels.unique()
    if not torch.equal(present, torch.arange(len(present), device="cpu")):
        raise ValueError(f"players must be numbered from 0 without gaps, got the labels {shown(present.tolist())}")
    return labels
