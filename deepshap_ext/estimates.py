"""Shapley values from what players add along chains of points between baseline and input, with how far they may be off.

A random order of the ``d`` players that differ is cut into ``L`` blocks, and leg ``l`` of the chain gives the players of block ``l`` the
input's values. With ``z_l`` the points of the chain and ``M_l = multipliers(z_l, z_(l-1)) * (x - r)``,

    own_i = M_l,i  for the leg l in which player i changes       all_i = mean_l M_l,i

``own`` adds up, and with ``L = d`` it is permutation sampling: unbiased. The multipliers of a leg say something of the players that do not
change in it, too: ``all`` has less variance, and more bias. Chains come in antithetic pairs, an order and its reverse. With ``o`` and ``a``
the means of ``own`` and ``all`` over a pair, and ``O`` and ``A`` their means over pairs and baselines,

    beta = min(1, V / G)    V = sum_i variance of the mean of (a - o)_i    G = |A - O|^2
    values = O + beta (A - O), made to add up in proportion to O_i^2 + A_i^2
    error_i^2 = variance of O_i + mean_i [c / (1 - c) (DeepSHAP - values)_i]^2    c = (d / L - 1) / (d - 1)

``c`` is the share of the pairs of players that change in one leg together; it is 1 for DeepSHAP and 0 without bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from .coalitions import Coalitions
from .dial import Dial
from .engine import Engine
from .explained import Explained
from .found import Found, sums
from .game import Game
from .moments import Moments, OverBaselines, over_baselines


def dialled(dial: Dial, engine: Engine, game: Game, base: Explained, progress: bool) -> tuple[Explained, Explained]:
    """``base``, which has DeepSHAP's values, with the values that the dial gives; and with the values that the additivity check is to look
    at, since those that the dial gives are made to add up."""
    if not dial.deepshap:
        return Estimates(dial, engine, game, base).run(progress)
    samples = torch.arange(len(base.targets), device=base.targets.device)
    found = with_values(base, game, game.by_player([one.values.value for one in base.found], samples))
    return found, found


@dataclass(frozen=True)
class _Part:
    """What the chains of some ``pairs`` ``[M, 2]`` of samples and baselines gave.

    ``mean`` ``[2 K, M, players]``: the means over the chains of ``own`` and, behind it, of ``all - own``. ``variance``, of the same shape:
    that of these means; None where there is only one pair of chains. ``bias`` ``[M]``: ``c / (1 - c)``.
    """

    pairs: Tensor
    mean: Tensor
    variance: Tensor | None
    bias: Tensor


class Estimates:
    """Estimates of the Shapley values of a ``game``; ``base`` has DeepSHAP's values for it."""

    def __init__(self, dial: Dial, engine: Engine, game: Game, base: Explained) -> None:
        self._dial, self._game, self._base = dial, game, base
        self._coalitions = Coalitions(engine, game, base.targets, dial.seed, dial.most_legs)

    def run(self, progress: bool) -> tuple[Explained, Explained]:
        """``base`` with the estimates and their squared standard errors; and with ``O``, which adds up by itself."""
        targets = self._base.targets
        step = self._at_once(2 * self._dial.chains(self._dial.most_legs) * self._game.baselines.number)
        # Made only where it is shown: Python swallows a KeyboardInterrupt that arrives in its __del__.
        bar = tqdm(total=len(targets), desc="accuracy dial", unit="sample") if progress else None
        found = []
        with nullcontext() if bar is None else bar:
            for samples in torch.arange(len(targets), device=targets.device).split(step):
                found.append(self._estimate(samples))
                if bar is not None:
                    bar.update(len(samples))
        values, errors, own = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        base = replace(self._base, inexact=self._coalitions.inexact, integrals=self._coalitions.integrals)
        return with_values(base, self._game, values, errors), with_values(base, self._game, own)

    def _estimate(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The values, their squared standard errors, and ``O``, of consecutive samples ``[n]``: ``[K, n, players]`` each."""
        base, baselines = self._base, self._game.baselines
        shares = (baselines.weights / baselines.weights.sum()).to(samples.device)
        outputs = base.targets.shape[1]
        zeros = torch.zeros(2 * outputs, len(samples), self._game.players, dtype=torch.float64, device=samples.device)
        mean, square, within = zeros, zeros.clone(), zeros.clone()
        bias, single = zeros[0, :, 0].clone(), torch.zeros_like(samples, dtype=torch.bool)
        for part in self._parts(samples):
            rows = part.pairs[:, 0] - samples[0]
            share = shares[part.pairs[:, 1]]
            weight = share.unsqueeze(1)
            mean.index_add_(1, rows, part.mean * weight)
            square.index_add_(1, rows, part.mean.square() * weight)
            bias.index_add_(0, rows, part.bias * share)
            if part.variance is None:
                single[rows] = True
            else:
                within.index_add_(1, rows, part.variance * weight.square())
        # Where each baseline has a single pair of chains, the spread over the baselines is an upper bound of the variance.
        others = baselines.degrees_of_freedom
        between = (square - mean.square()).clamp(min=0) / others if others > 0 else torch.full_like(mean, torch.nan)
        variance = torch.where(single.unsqueeze(1), between, within)
        own, extra = mean.unflatten(0, (2, outputs))
        beta = (variance[outputs:].sum(2) / extra.square().sum(2)).clamp(max=1)
        if others <= 0:
            # A single pair of chains has no spread to compute beta from: half way was best on the networks that it was tried on.
            beta[:, single] = 0.5
        values = own + beta.nan_to_num(0).unsqueeze(2) * extra
        weights = own.square() + (own + extra).square()
        difference = (base.outputs[samples] - base.expected[samples]).t()
        gap = difference.double() - values.sum(2)
        values += (gap / weights.sum(2)).nan_to_num(0, 0, 0).unsqueeze(2) * weights
        return values, variance[:outputs] + self._squared_bias(samples, values, bias), own

    def _squared_bias(self, samples: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        """``[K, n, players]``: the squared bias of the ``values``, for players that have any influence its mean over them, 0 for others."""
        deepshap = self._game.by_player([found.values.value[:, samples] for found in self._base.found], samples)
        influence = (deepshap != 0) | (values != 0)
        squares = ((deepshap - values) * bias.unsqueeze(1)).square()
        return squares.sum(2, keepdim=True) / influence.sum(2, keepdim=True).clamp(min=1) * influence

    def _parts(self, samples: Tensor) -> Iterator[_Part]:
        """The chains of these samples with all of their baselines, by how many players differ: the pairs with few, then all others."""
        game, dial = self._game, self._dial
        every = torch.cartesian_prod(samples, torch.arange(game.baselines.number, device=samples.device))
        some = every.split(self._coalitions.at_once)
        differ = torch.cat([game.taking_part(*pairs.unbind(1)).sum(1) for pairs in some])
        # Pairs in which no player differs have nothing to share.
        for players in differ[(differ > 0) & (differ <= dial.few_players)].unique().tolist():
            pairs = every[differ == players]
            yield from self._of_few(pairs, players)
        many = differ > dial.few_players
        if many.any():
            legs, players = dial.most_legs, differ[many]
            together = (players / legs - 1) / (players - 1)
            yield from self._of_chains(every[many], legs, together / (1 - together))

    def _of_few(self, pairs: Tensor, players: int) -> Iterator[_Part]:
        """Without bias, for pairs in which ``players`` of them differ: exact, or by chains whose legs change one player each."""
        if not self._dial.all_coalitions(players):
            yield from self._of_chains(pairs, players, torch.zeros_like(pairs[:, 0]))
            return
        for some in pairs.split(self._at_once(2**players)):
            own = self._coalitions.of_all(some, players)
            mean = torch.cat([own, torch.zeros_like(own)])
            yield _Part(some, mean, torch.zeros_like(mean), torch.zeros_like(some[:, 0]))

    def _of_chains(self, pairs: Tensor, legs: int, bias: Tensor) -> Iterator[_Part]:
        """By chains of so many legs; if they have no ``bias``, each leg changes one player."""
        number = self._dial.chains(legs)
        step = self._at_once(2 * number)
        run = self._coalitions.by_blocks if bias.any() else self._coalitions.one_by_one
        for some, theirs in zip(pairs.split(step), bias.split(step), strict=True):
            total: OverBaselines | None = None
            for numbers in torch.arange(number, device=pairs.device).split(self._at_once(2)):
                own, every = run(some, numbers, legs)
                part = over_baselines(
                    torch.cat([own, every - own]), torch.ones(len(numbers), dtype=torch.float64), False, variance=True
                )
                total = part if total is None else total + part  # type: ignore[operator]
            assert total is not None and total.variance is not None
            yield _Part(some, total.value, total.variance / (number - 1) if number > 1 else None, theirs)

    def _at_once(self, runs: int) -> int:
        """How many at once of what takes ``runs`` coalitions or chains each."""
        return max(1, self._coalitions.at_once // runs)


def with_values(base: Explained, game: Game, values: Tensor, variance: Tensor | None = None) -> Explained:
    """The base with the values of players ``[K, N, players]``, and their ``variance``, instead of its own."""
    deepshap = base.found[0].values
    assert isinstance(deepshap, Moments)
    sizes = [tensor[0].numel() for tensor in game.inputs[: game.explained]]
    shapes = [tensor.shape[1:] for tensor in game.inputs[: game.explained]]

    def of_inputs(tensor: Tensor) -> list[Tensor]:
        tensor = tensor.to(deepshap.value.dtype)
        if game.labels is not None:
            return [tensor]
        parts = zip(tensor.split(sizes, 2), shapes, strict=True)
        return [part.reshape(*part.shape[:2], *shape) for part, shape in parts]

    variances = [None] * len(base.found) if variance is None else of_inputs(variance)
    found = []
    for mean, spread in zip(of_inputs(values), variances, strict=False):
        moments = replace(deepshap, value=mean, variance=spread)
        found.append(Found(moments, *sums(moments), None))
    return replace(base, found=found, layers=[slice(0, len(found))])
