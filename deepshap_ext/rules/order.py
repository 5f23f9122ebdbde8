"""Order statistics: the values of a sort. Positions (``argsort``, the indices of ``topk``) are constants where both sides have the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .registry import Application, Context, decomposition, rule


def order_statistics(input: Tensor, ranks: Sequence[int]) -> Tensor:
    """``[..., n]`` to ``[..., len(ranks)]``: the elements at these ranks of the last dimension in ascending order."""
    if input.shape[-1] == 0:
        return input.clone()
    if has_torch_function_unary(input):
        return handle_torch_function(order_statistics, (input,), input, ranks)
    values = input.sort(-1).values
    return values if list(ranks) == [*range(input.shape[-1])] else values[..., list(ranks)]


@rule("order_statistics")
def _order_statistics(_: Context, input: Tensor, ranks: Sequence[int]) -> Application:
    """Nearly the Shapley values, in the time of a sort: chosen among several complete rules, which docs/rules.md compares.

    With ``G(k)`` the sum of the multipliers of the ``k`` largest outputs and ``N(t)`` the number of elements above ``t``, the outputs'
    weighted sum is the integral of ``G(N(t))`` over ``t``, but for a constant. At a threshold, ``a`` elements exceed it in ``x`` alone,
    ``b`` in ``r`` alone and ``c`` on both sides; the values change there by ``G(c + a) - G(c + b)``, and that is shared among the ``a + b``
    that cross it (:func:`_shares`). An element's multiplier is the mean of its share over the thresholds between its two sides.
    """

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return order_statistics(x, ranks), [x]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        # A sort puts NaNs last, as if they were infinite.
        x, r = torch.broadcast_tensors(*(side.nan_to_num(math.inf, math.inf, -math.inf) for side in sides.pair(0)))
        n = input.shape[-1]
        places = n - 1 - torch.tensor(ranks, dtype=torch.int64, device=grad.device)
        by_rank = torch.zeros(*grad.shape[:-1], n, dtype=torch.float64, device=grad.device)  # from the largest down
        by_rank = by_rank.scatter_add(-1, places.expand_as(grad), grad.double())
        return [_multipliers(by_rank, x.double(), r.double()).to(grad.dtype)]

    return Application([input], forward, multipliers)


def _multipliers(by_rank: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """``[..., n]``: the multipliers of the elements, from those of the sorted elements, ``by_rank``, the largest first."""
    n = x.shape[-1]
    # Each element's two sides are neighbours here. The sort is stable: an element that is equal on both sides keeps its sides together,
    # also among ties, and has the multiplier of one rank, as in torch's own gradient.
    thresholds, order = torch.stack([r, x], -1).flatten(-2).sort(dim=-1, stable=True)
    lower_side = torch.stack([r <= x, r > x], -1).flatten(-2).gather(-1, order)
    sides_of_x = order % 2 == 1
    # How many elements lie above a threshold between one side and the next: in x, in r, and on both sides.
    in_x, in_r, in_both = (n - side.double().cumsum(-1) for side in (sides_of_x, ~sides_of_x, lower_side))
    falling, rising = _shares(by_rank, in_x, in_r, in_both)

    steps = thresholds.diff()
    # Only elements that are infinite on one side cross an infinite step, and their values are no numbers anyway.
    steps = torch.where(steps.isfinite(), steps, 0)
    shares = torch.stack([falling, rising], -2)
    areas = F.pad(shares[..., :-1] * steps.unsqueeze(-2), (1, 0)).cumsum(-1).flatten(-2)

    places = torch.zeros_like(order).scatter(-1, order, torch.arange(2 * n, device=x.device).expand_as(order))
    of_r, of_x = places.unflatten(-1, (n, 2)).unbind(-1)
    half = torch.where(of_x > of_r, 2 * n, 0)  # the falling elements' shares come first, then the rising ones'
    low, high = half + torch.minimum(of_r, of_x), half + torch.maximum(of_r, of_x)
    mean = (areas.gather(-1, high) - areas.gather(-1, low)) / (x - r).abs()
    # The difference of two cumulative areas is accurate relative to these, so that of close sides may have no digits left. Where no other
    # threshold lies between the sides, the mean is a single share; otherwise it is kept between the smallest and largest multiplier.
    mean = torch.where(high - low == 1, shares.flatten(-2).gather(-1, low), mean)
    return mean.clamp(by_rank.amin(-1, keepdim=True), by_rank.amax(-1, keepdim=True))


def _shares(by_rank: Tensor, in_x: Tensor, in_r: Tensor, in_both: Tensor) -> tuple[Tensor, Tensor]:
    """The share in the ranks' multipliers of an element that falls below a threshold from ``r`` to ``x``, and of one that rises above it.

    In the Shapley value elements change sides at independent uniform times, and each takes the multiplier of the rank that it enters or
    leaves, which depends on how many are above the threshold just then. Where ``a`` rise and ``b <= a`` fall, the rank that a falling one
    leaves is spread about the middle of ``in_x`` and ``in_r``, with the variance ``((a - b)^2 + 4a) / 12`` if a rank is as wide as 1. Its
    share is the mean of the multipliers over the interval of ranks with that middle and variance, ``sqrt((a - b)^2 + 4a)`` wide. The ``a``
    share equally what is left of the whole change. Where ``b > a`` the two change places. Both shares are means of the multipliers; they
    are exact where the fewer are one or none.
    """
    n = by_rank.shape[-1]
    total = F.pad(by_rank.cumsum(-1), (1, 0))

    def largest(count: Tensor) -> Tensor:
        """The sum of the multipliers of the ``count`` largest elements; ``count`` need not be a whole number."""
        count = count.clamp(0, n)
        whole = count.long().clamp(max=n - 1)
        return total.gather(-1, whole) + (count - whole) * by_rank.gather(-1, whole)

    more, fewer = torch.maximum(in_x, in_r), torch.minimum(in_x, in_r)
    width = ((more - fewer).square() + 4 * (more - in_both)).sqrt().clamp(min=1)
    middle = (more + fewer) / 2
    of_fewer = (largest(middle + width / 2) - largest(middle - width / 2)) / width
    change = largest(more) - largest(fewer)
    of_more = (change + (fewer - in_both) * of_fewer) / (more - in_both).clamp(min=1)
    risen = in_x >= in_r
    return torch.where(risen, of_fewer, of_more), torch.where(risen, of_more, of_fewer)


def _along(input: Tensor, dim: int, ranks: Sequence[int]) -> Tensor:
    """:func:`order_statistics` along ``dim``."""
    return order_statistics(input.movedim(dim, -1), ranks).movedim(-1, dim)


@decomposition("sort")
def _sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    if input.dim() == 0:
        return torch.return_types.sort((input.clone(), torch.zeros_like(input, dtype=torch.int64)))
    indices = torch.argsort(input.detach(), dim=dim, descending=descending, stable=stable)
    values = _along(input, dim, range(input.shape[dim]))
    return torch.return_types.sort((values.flip(dim) if descending else values, indices))


@decomposition("msort")
def _msort(input: Tensor) -> Tensor:
    return torch.sort(input, 0).values


@decomposition("topk")
def _topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    # Without `sorted` torch promises no order, and its own one differs between a sample and a baseline; so it is the sorted one.
    indices = torch.topk(input.detach(), k, dim, largest).indices
    if input.dim() == 0:
        return torch.return_types.topk((input.gather(dim, indices), indices))
    n = input.shape[dim]
    values = _along(input, dim, range(n - 1, n - 1 - k, -1) if largest else range(k))
    return torch.return_types.topk((values, indices))


@decomposition("kthvalue")
def _kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    indices = torch.kthvalue(input.detach(), k, dim, keepdim).indices
    return torch.return_types.kthvalue((_one(input, dim, keepdim, k - 1), indices))


def _one(input: Tensor, dim: int, keepdim: bool, rank: int) -> Tensor:
    """The element at one rank along ``dim``."""
    if input.dim() == 0:
        return input.clone()
    value = _along(input, dim, [rank])
    return value if keepdim else value.squeeze(dim)


@decomposition("median")
def _median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None:
        return _one(input.reshape(-1), 0, False, (input.numel() - 1) // 2)
    size = input.shape[dim] if input.dim() else 1
    indices = torch.median(input.detach(), dim, keepdim).indices
    return torch.return_types.median((_one(input, dim, keepdim, (size - 1) // 2), indices))


@decomposition("nanmedian")
def _nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    entries = input.reshape(-1) if dim is None else input.movedim(dim, -1)
    value = _ordered(entries).gather(-1, (_number(entries) - 1).clamp(min=0) // 2)
    if dim is None:
        return value.squeeze(-1)
    value, indices = value.movedim(-1, dim), torch.nanmedian(input.detach(), dim, keepdim).indices
    return torch.return_types.nanmedian((value if keepdim else value.squeeze(dim), indices))


def _ordered(entries: Tensor) -> Tensor:
    """``[..., n]`` in ascending order, NaNs last."""
    return order_statistics(entries, range(entries.shape[-1]))


def _number(entries: Tensor) -> Tensor:
    """``[..., 1]``: how many of ``[..., n]`` are no NaN."""
    return entries.isnan().logical_not().sum(-1, keepdim=True)


@decomposition("mode")
def _mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    # Which number is the most frequent is a decision.
    indices = torch.mode(input.detach(), dim, True).indices
    values = input.gather(dim, indices)
    if not keepdim:
        values, indices = values.squeeze(dim), indices.squeeze(dim)
    return torch.return_types.mode((values, indices))


def _neighbours(positions: Tensor, interpolation: str) -> tuple[Tensor, Tensor, Any]:
    """The ranks below and above fractional ``positions``, and the weight of the one above."""
    if interpolation in ("lower", "higher", "nearest"):
        rank = {"lower": torch.floor, "higher": torch.ceil, "nearest": torch.round}[interpolation](positions).long()
        return rank, rank, 0
    below = positions.floor()
    return below.long(), positions.ceil().long(), 0.5 if interpolation == "midpoint" else positions - below


def _quantiles(low: Tensor, high: Tensor, share: Any, q: Any, dim: int | None, keepdim: bool, dims: int) -> Tensor:
    """Quantiles in the shape that torch returns, from the elements ``low`` and ``high`` ``[..., number of q]`` on both sides of each."""
    values = low + share * (high - low)
    if keepdim:
        values = values.view(*[1] * dims, -1) if dim is None else values.unsqueeze(-2).movedim(-2, dim % dims)
    several = isinstance(q, Tensor) and q.dim() > 0
    return values.movedim(-1, 0) if several else values.squeeze(-1)


@decomposition("quantile")
def _quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    entries = input.reshape(-1) if dim is None else input.movedim(dim, -1)
    positions = torch.as_tensor(q, dtype=input.dtype, device=input.device).reshape(-1) * (entries.shape[-1] - 1)
    below, above, share = _neighbours(positions, interpolation)
    values = order_statistics(entries, below.tolist() + above.tolist())
    low, high = values.chunk(2, -1)
    return _quantiles(low, high, share, q, dim, keepdim, input.dim())


@decomposition("nanquantile")
def _nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    entries = input.reshape(-1) if dim is None else input.movedim(dim, -1)
    last = (_number(entries) - 1).clamp(min=0)
    positions = torch.as_tensor(q, dtype=input.dtype, device=input.device).reshape(-1) * last
    below, above, share = _neighbours(positions, interpolation)
    ordered = _ordered(entries)
    low, high = (ordered.gather(-1, ranks) for ranks in (below, above))
    return _quantiles(low, high, share, q, dim, keepdim, input.dim())
