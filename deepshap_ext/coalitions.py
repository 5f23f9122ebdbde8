"""What players add to coalitions of other players: to all coalitions, or one by one or block by block along random orders."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .chains import Chains
from .engine import Engine
from .game import Game
from .orders import fold_in, keys_of_samples, ranks
from .planner import Work


class Coalitions:
    """What the players of a ``game`` add to the flattened outputs ``targets`` ``[N, K]`` of its samples.

    Below, ``pairs`` ``[M, 2]`` are the numbers of samples and of their baselines. Random orders come in antithetic pairs, an order and its
    reverse; ``numbers`` ``[P]`` tell the orders of one sample and baseline apart. Results are float64.
    """

    def __init__(self, engine: Engine, game: Game, targets: Tensor, seed: int, most_legs: int) -> None:
        self._engine, self._game, self._targets = engine, game, targets
        self._keys = keys_of_samples(seed, game.inputs[: game.explained]).to(engine.device)
        budget, outputs = engine.budget(), targets.shape[1]
        work = Work(2**31, 1, outputs, shared=False, aligned=True, by_pair=False)
        # Bytes of a chain: its points and ends, its order, and several numbers of each player and output.
        of_chain = (most_legs + 3) * sum(tensor[0].nbytes for tensor in game.inputs) + 64 * (1 + outputs) * game.players
        #: How many coalitions, or chains of up to ``most_legs``, are run at once.
        self.at_once = max(1, min(engine.plan(work, budget).inputs, budget // 3 // of_chain))
        #: Operations that kept values of legs from adding up, as in :class:`deepshap_ext.explained.Explained`.
        self.inexact: dict[str, set[int]] = {}
        self.integrals: dict[str, float] = {}

    def of_all(self, pairs: Tensor, players: int) -> Tensor:
        """``[K, M, players]``: exact Shapley values where ``players`` of them differ, by a forward pass for each of their coalitions."""
        count = 2**players
        taking_part = self._game.taking_part(*pairs.unbind(1))
        places = taking_part.nonzero()[:, 1].view(len(pairs), players)
        worths = []
        for some in torch.arange(len(pairs) * count, device=pairs.device).split(self.at_once):
            rows, codes = some // count, some % count
            bits = (codes.unsqueeze(1) >> torch.arange(players, device=codes.device)) & 1
            inside = torch.zeros_like(taking_part[rows]).scatter_(1, places[rows], bits.bool())
            worths.append(self._worths(pairs[rows], inside))
        worth = torch.cat(worths).t().reshape(-1, len(pairs), *[2] * players)
        found = worth.new_zeros(len(worth), len(pairs), self._game.players)
        shares = torch.tensor(
            [1 / (players * math.comb(players - 1, size)) for size in range(players)], dtype=torch.float64
        )
        # The Shapley weight of each coalition of the other players, by its size.
        weights = shares[[code.bit_count() for code in range(count // 2)]].to(worth.device)
        for place in range(players):
            # The last dimension of worth is the lowest bit of a coalition's code.
            without, joined = worth.unbind(-1 - place)
            value = ((joined - without).reshape(*found.shape[:2], -1) * weights).sum(2, keepdim=True)
            found.scatter_(2, places[:, place : place + 1].expand(len(found), -1, -1), value)
        return found

    def one_by_one(self, pairs: Tensor, numbers: Tensor, players: int) -> tuple[Tensor, Tensor]:
        """:meth:`by_blocks` with blocks of one player, for which forward passes are enough; ``all`` is ``own``: no other player changes."""
        chains, order, _ = self._orders(pairs, numbers)
        worth = torch.stack([self._worths(chains, order < size) for size in range(players + 1)])
        added = worth.diff(dim=0).permute(2, 1, 0).gather(2, order.clamp(0, players - 1).expand(worth.shape[2], -1, -1))
        taking_part = self._game.taking_part(*chains.unbind(1))
        own = _by_pair(added * taking_part, pairs, numbers)
        return own, own

    def by_blocks(self, pairs: Tensor, numbers: Tensor, legs: int) -> tuple[Tensor, Tensor]:
        """``own`` and ``all`` of :mod:`deepshap_ext.estimates`, ``[K, M, P, players]`` each: means over an order and its reverse, each cut
        into ``legs`` blocks."""
        chains, order, cuts = self._orders(pairs, numbers, legs)
        samples = chains[:, 0]
        sides = self._game.sides(*chains.unbind(1))
        points = [self._game.points(sides, order < cut.unsqueeze(1), samples) for cut in cuts.unbind(1)]
        explained = Chains(self._engine, points, self._targets[samples]).run()
        own = [legs * found.values.value for found in explained.found]
        every = [
            # Explained integers have no multipliers, so those that do not change in a leg get nothing in it.
            found.multipliers.value * (x - r) if found.multipliers is not None and x.is_floating_point() else mine
            for mine, found, x, r in zip(own, explained.found, *sides, strict=False)
        ]
        for title, rows in explained.inexact.items():
            self.inexact.setdefault(title, set()).update(samples[list(rows)].tolist())
        for title, gap in explained.integrals.items():
            self.integrals[title] = max(gap, self.integrals.get(title, 0.0))
        both = [_by_pair(self._game.by_player(values, samples), pairs, numbers) for values in (own, every)]
        return both[0], both[1]

    def _orders(self, pairs: Tensor, numbers: Tensor, legs: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Of ``C = 2 M P`` chains: the sample and the baseline, ``[C, 2]``; each player's place in the order, ``[C, players]``; and how
        many players have the sample's values at each point, ``[C, legs + 1]``.

        A reversed order is cut into the same blocks.
        """
        rows = pairs.repeat_interleave(len(numbers), 0)
        samples, baselines = rows.unbind(1)
        keys = fold_in(fold_in(self._keys[samples], baselines), numbers.repeat(len(pairs)))
        taking_part = self._game.taking_part(samples, baselines)
        count = taking_part.sum(1, keepdim=True)
        order = ranks(keys, taking_part)
        legs_before = torch.arange(legs + 1, device=rows.device)
        cuts = (2 * legs_before * count + legs) // (2 * legs)

        def beside(one: Tensor, reverse: Tensor) -> Tensor:
            return torch.stack([one, reverse], 1).flatten(0, 1)

        return beside(rows, rows), beside(order, count - 1 - order), beside(cuts, count - cuts.flip(1))

    def _worths(self, pairs: Tensor, inside: Tensor) -> Tensor:
        """``[C, K]``: the outputs where the players ``inside`` ``[C, players]`` have the samples' values, for ``pairs`` ``[C, 2]``."""
        points = self._game.points(self._game.sides(*pairs.unbind(1)), inside, pairs[:, 0])
        return self._engine.outputs(points, self._targets[pairs[:, 0]]).double()


def _by_pair(values: Tensor, pairs: Tensor, numbers: Tensor) -> Tensor:
    """``[K, M, P, players]`` from ``[K, 2 M P, players]``: means over each order and its reverse."""
    return values.unflatten(1, (len(pairs), len(numbers), 2)).mean(3)
