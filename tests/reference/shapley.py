"""Exact Shapley values by brute force over all coalitions, in float64. Slow and plain; nothing here comes from the package under test."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def shapley_values(function: Function, x: Tensor, r: Tensor) -> Tensor:
    """What each player adds to ``function``, averaged over all orders in which players go from ``r`` to ``x``.

    ``phi_i = sum over coalitions S without i of |S|! (n - |S| - 1)! / n! * (f(S and i) - f(S))``, where ``f(S)`` has the players of ``S``
    at ``x`` and the others at ``r`` (Shapley 1953).

    ``x``, ``r``: ``[players, *features]``: the players are numbers or, with features, vectors. ``function`` maps ``[batch, players,
    *features]`` to ``[batch, *outputs]``. The result: ``[players, *outputs]``. Time and memory grow as 2^players.
    """
    x, r = x.double(), r.double()
    n = len(x)
    coalitions = ((torch.arange(2**n).unsqueeze(1) >> torch.arange(n)) & 1).bool()
    points = torch.where(coalitions.reshape(2**n, n, *[1] * (x.dim() - 1)), x, r)
    worth = function(points)
    sizes = coalitions.sum(1).tolist()
    each = [1 / (n * math.comb(n - 1, size)) if size < n else 0.0 for size in sizes]
    weights = torch.tensor(each, dtype=torch.float64)
    values = []
    for i in range(n):
        without = ~coalitions[:, i]
        gain = worth[coalitions[:, i]] - worth[without]  # in the same order: they differ by bit i alone
        values.append(torch.tensordot(weights[without], gain, 1))
    return torch.stack(values)


def of_pairs(function: Function, x: Tensor, r: Tensor) -> Tensor:
    """The Shapley values of every pair of ``x`` and ``r [pairs, players, *features]``: ``[pairs, players, outputs]``.

    ``function`` maps ``[batch, players, *features]`` to ``[batch, outputs]``.
    """

    def worth(points: Tensor) -> Tensor:  # [coalitions, players, pairs, *features]
        points = points.transpose(1, 2)
        return function(points.flatten(0, 1)).unflatten(0, points.shape[:2])

    return shapley_values(worth, x.transpose(0, 1), r.transpose(0, 1)).transpose(0, 1)


def distances(found: Tensor, exact: Tensor) -> Tensor:
    """``|found - exact| / |exact|`` over the players and outputs of each pair; 0 where both are 0."""
    gap, size = ((found - exact).flatten(1).norm(dim=1), exact.flatten(1).norm(dim=1))
    return torch.where(gap == 0, gap, gap / size)


def shapley_of_max(x: Tensor, r: Tensor) -> Tensor:
    """The Shapley values of ``max`` over the last dimension, of any size: of the indicators that the maximum exceeds a threshold.

    Between two neighbours among all sides the ``a`` entries with ``x > t >= r`` and the ``b`` with ``r > t >= x`` decide, unless another
    exceeds t on both sides: each of ``a`` has ``b! (a-1)! / (a+b)!``, each of ``b`` ``-a! (b-1)! / (a+b)!``.
    """
    x, r = x.double(), r.double()
    n = x.shape[-1]
    table = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    for a in range(1, n + 1):
        for b in range(n + 1 - a):
            table[a, b] = 1 / (a * math.comb(a + b, a))  # exact integers: no factorial overflows
    values = torch.zeros_like(x)
    thresholds = torch.cat([x, r], -1).sort(-1).values
    for low, high in zip(thresholds.unbind(-1)[:-1], thresholds.unbind(-1)[1:], strict=True):
        t, step = low.unsqueeze(-1), (high - low).unsqueeze(-1)
        rising, falling = (x > t) & (r <= t), (r > t) & (x <= t)
        held = ((x > t) & (r > t)).any(-1, keepdim=True)
        a, b = rising.sum(-1, keepdim=True), falling.sum(-1, keepdim=True)
        step = torch.where(held, torch.zeros_like(step), step)
        values += step * (rising * table[a, b] - falling * table[b, a])
    return values
